"""Tests of training.grow."""
