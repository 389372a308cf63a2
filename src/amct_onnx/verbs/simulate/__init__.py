"""simulate: a deploy model over a data set, with a chip's arithmetic."""
