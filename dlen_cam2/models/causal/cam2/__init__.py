"""CAM2 (Raul et al., 2023)."""
