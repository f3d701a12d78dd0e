"""DoReFa-Net."""
