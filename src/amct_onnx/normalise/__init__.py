"""Exporters' dialects become one canonical form: float tensor, Q, DQ with known constants."""
