"""Find where a difference begins, and its cause."""
