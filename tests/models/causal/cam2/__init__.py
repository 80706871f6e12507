"""Tests of models.causal.cam2."""
