"""Batch norms folded into binary and ternary networks."""
