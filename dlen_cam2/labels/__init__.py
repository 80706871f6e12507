"""Kinds of tasks: what is trained of a logged column, a kind each."""
