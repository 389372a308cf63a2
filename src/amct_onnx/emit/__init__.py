"""One plan becomes deploy graph, fake-quant graph and record."""
