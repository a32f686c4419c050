"""`python -m fgjax` is the command `fgjax`."""

from fgjax.cli import main

main()
