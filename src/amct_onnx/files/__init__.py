"""Model files: read with every claim checked, written all or none."""
