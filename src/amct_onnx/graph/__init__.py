"""Tools of the graph that every stage uses."""
