"""The classic API: paths, names, flags and files as they were, translated to the registry."""
