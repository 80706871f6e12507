"""Raw logs in, TFRecord data sets out. One SQL file and one small reader per source."""
