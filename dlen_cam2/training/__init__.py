"""Training: from a configuration and days to a trained model."""
