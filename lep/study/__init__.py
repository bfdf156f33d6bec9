"""A grid of design choices from one file: `lep study GRID.yaml`.

grid.py       the file: a recipe with axes → cells
steps.py      the steps of a cell, each in a folder named by its key, made once for all cells that share it
measure.py    what is measured of a trained cell: held-out documents, symbols per token, copying, the benchmark
plan.py       what is to be done, what it takes, what does not fit
design.py     the order of the cells, what a budget leaves out, which designs go further in successive halving
run.py        running the cells, in this process or beside one another
child.py      the process that runs one cell
results.py    what was measured, cell by cell
anova.py      an analysis of variance of a grid that need not be whole
analysis.py   configurations: paired differences, shared ranks, start against end, costs, the recommendation
findings.py   the paper's findings, and what the grid says of each by stated rules
figures.py    the figures
report.py     the page, Markdown, CSV and figures
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lep.study.grid import read_grid
    from lep.study.plan import plan_study
    from lep.study.report import write_report
    from lep.study.run import run_study

_PLACES = {"plan_study": "plan", "read_grid": "grid", "run_study": "run", "write_report": "report"}

__all__ = ["plan_study", "read_grid", "run_study", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lep.study.{_PLACES[name]}"), name)
