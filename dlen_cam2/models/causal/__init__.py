"""Causal branches beside a trunk."""
