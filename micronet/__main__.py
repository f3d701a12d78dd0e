"""`python -m micronet`, the same as the `micronet` command."""

from micronet.cli import main

main()
