"""Utilities that every part of the project uses and none of them owns."""
