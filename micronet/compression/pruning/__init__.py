"""The classic pruning commands."""
