"""The classic operations as modules."""
