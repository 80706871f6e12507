"""Tests of pipelines.writer."""
