"""Proposes a schema for a log: from the names, from the values, and from what follows."""
