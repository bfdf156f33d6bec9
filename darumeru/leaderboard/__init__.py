"""Many runs → tables, figures and a static site; two runs → what differs between them.

>>> build([Path("runs")], Path("site"))
>>> compare(load_run("runs/a"), load_run("runs/b"))
"""

from __future__ import annotations

from darumeru.leaderboard.compare import Comparison, compare
from darumeru.leaderboard.live import served
from darumeru.leaderboard.site import Built, build

__all__ = ["Built", "Comparison", "build", "compare", "served"]
