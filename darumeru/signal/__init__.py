"""What a benchmark's tasks tell about models, and at which cost; the part of a suite that decides best for a budget.

>>> study = read_study([Path("runs")])
>>> measure(study)
>>> choose(study, budget=200_000)
"""

from __future__ import annotations

from darumeru.signal.measure import Measure, Summary, measure
from darumeru.signal.study import Study, read_study
from darumeru.signal.subset import Subset, budget_of, choose

__all__ = ["Measure", "Study", "Subset", "Summary", "budget_of", "choose", "measure", "read_study"]
