"""Experiments: which cells a table has, how they are trained and how the page is written."""
