"""`python -m lep`, and with several processes `accelerate launch -m lep`."""

from lep.cli import main

main()
