"""convert: a QAT model becomes a deploy model and a fake-quant model."""
