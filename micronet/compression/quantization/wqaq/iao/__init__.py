"""Integer-arithmetic-only quantization."""
