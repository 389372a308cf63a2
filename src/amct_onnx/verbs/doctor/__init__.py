"""Shows whether ONNX Runtime settings give the true numbers of a Q/DQ model on this CPU."""
