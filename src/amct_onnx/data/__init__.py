"""Data sets from files: one module, ``read_feeds``."""
