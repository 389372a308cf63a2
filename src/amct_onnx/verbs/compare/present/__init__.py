"""The report as a verdict, a table and a page."""
