"""MMLU: four-choice questions on 57 subjects, in Russian and in English."""

from darumeru.scoring.aggregate import macro_mean
from darumeru.task import ChoiceTask


class Mmlu(ChoiceTask):
    """Accuracy, macro-averaged over the subjects."""

    METRICS = {"acc": macro_mean}
