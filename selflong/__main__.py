"""`python -m selflong`: the command line."""

from selflong.cli import main

main()
