"""RuCoLA: is a Russian sentence acceptable?"""

from darumeru.scoring.aggregate import accuracy, matthews
from darumeru.task import ChoiceTask


class Rucola(ChoiceTask):
    """Accuracy and Matthews correlation."""

    METRICS = {"acc": accuracy, "mcc": matthews}
