"""Causal branches beside a trunk, one package for each paper."""
