"""The device side: the arithmetic of the Ascend operators per product; a session that runs deploy models."""
