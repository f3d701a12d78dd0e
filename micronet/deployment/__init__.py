"""From a model to a measured engine: export, precision, parity, loading, timing."""
