"""Binary and ternary networks."""
