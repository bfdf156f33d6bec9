"""A campaign of faults: the real commands on tiny models, disturbed at random, and what must hold afterwards.

    python -m tests.chaos --seed 7 --minutes 10 --only run pretrain

A *scenario* (`scenarios`) is a command and what it leaves when nothing disturbs it. A *fault* (`faults`) disturbs one
start of it. Then the same command is started again, and it is looked at whether the *invariants* hold (`invariants`,
`content`). A seed decides what is drawn; the moments at which signals arrive differ from machine to machine.
"""

import sys
from pathlib import Path

# The tests' helpers are found as pytest finds them (`pythonpath` of pyproject.toml).
if (_tests := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.append(_tests)
