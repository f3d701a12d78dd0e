"""Fails at import."""

raise RuntimeError("the flux capacitor is empty")
