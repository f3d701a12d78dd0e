"""Training a model, on one device or many."""
