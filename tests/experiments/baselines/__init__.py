"""Tests of experiments.baselines."""
