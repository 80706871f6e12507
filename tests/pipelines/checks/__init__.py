"""Tests of pipelines.checks."""
