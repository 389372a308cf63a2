"""Data sets from arrays, images and Python files."""
