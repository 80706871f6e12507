"""Features made from earlier rows: counters and histories, point in time."""
