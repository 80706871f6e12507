"""Kinds of tasks: how a logged column is trained on, with a module for each kind."""
