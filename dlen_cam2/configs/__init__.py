"""One small file per experiment; `get_config()` returns a `Config`."""
