"""Tests of models.heads."""
