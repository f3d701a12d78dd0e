"""A trained network with quantized values for weights."""
