"""Tasks and suites: what is asked and what an answer is worth.

A task's YAML file names one of these classes: `class: !function darumeru.task.ChoiceTask`.
"""

from darumeru.task.base import (
    ChoiceF1Task,
    ChoiceTask,
    DarumeruTask,
    GenerateTask,
    Options,
    PairedChoiceTask,
    Score,
    Wording,
    swapped,
)

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
