"""The classic quantizers."""
