"""The device side: the arithmetic of the Ascend operators per product, and a session that runs deploy models with it."""
