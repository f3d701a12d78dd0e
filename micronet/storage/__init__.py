"""Files: written whole or not at all, weights, packed and pruned models."""
