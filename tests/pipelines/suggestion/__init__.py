"""Tests of pipelines.suggestion."""
