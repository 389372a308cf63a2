"""One verdict for each candidate layer and each quantizer; the graph is not modified."""
