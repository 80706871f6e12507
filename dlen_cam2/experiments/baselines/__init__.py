"""What networks are compared with."""
