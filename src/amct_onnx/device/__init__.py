"""The device side: the arithmetic of the Ascend operators per chip; a session that runs deploy models."""
