"""A feed with known truth: its parameters, and a log that is drawn from them."""
