"""Tasks and suites: what is asked and what an answer is worth.

A task's YAML file names one of these classes: `class: !function darumeru.task.ChoiceTask`.
"""

from darumeru.task.base import DarumeruTask
from darumeru.task.choice import ChoiceF1Task, ChoiceTask, PairedChoiceTask, swapped
from darumeru.task.generate import GenerateTask
from darumeru.task.options import Options, Wording
from darumeru.task.score import Score

__all__ = [
    "ChoiceF1Task",
    "ChoiceTask",
    "DarumeruTask",
    "GenerateTask",
    "Options",
    "PairedChoiceTask",
    "Score",
    "Wording",
    "swapped",
]
