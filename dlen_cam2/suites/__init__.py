"""Experiments: which cells a paper's table has, and how its page is written."""
