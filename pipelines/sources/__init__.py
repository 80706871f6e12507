"""Readers that turn the files of public data sets into typed tables."""
