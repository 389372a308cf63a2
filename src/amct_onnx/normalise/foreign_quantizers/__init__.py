"""Fake-quant nodes of foreign domains: each dialect reads a node as a grid, ``writer`` writes the grid as Q/DQ."""
