"""Tests of models.causal."""
