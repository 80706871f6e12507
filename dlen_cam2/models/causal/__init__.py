"""Causal branches beside a trunk, a paper each."""
