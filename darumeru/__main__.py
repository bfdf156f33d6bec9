"""`python -m darumeru`, where the command is not on the path."""

from darumeru.cli import main

main()
