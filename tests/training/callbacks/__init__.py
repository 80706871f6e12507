"""Tests of training.callbacks."""
