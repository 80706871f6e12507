"""What runs beside the steps."""
