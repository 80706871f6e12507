"""Tests of pipelines.engines."""
