"""For a plugin API to come."""

raise AssertionError("nobody should import this")
