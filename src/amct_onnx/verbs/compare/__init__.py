"""Source, fake-quant and deploy model side by side: where accuracy went, and why."""
