"""Features made of what came before: counters and histories, point in time."""
