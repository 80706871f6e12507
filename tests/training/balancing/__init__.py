"""Tests of training.balancing."""
