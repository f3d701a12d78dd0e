"""Batch norms folded into integer networks."""
