"""Transfers: pass information between the tasks, after their towers and before the head."""
