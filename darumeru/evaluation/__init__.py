"""Evaluating a model: settings → plan (tasks, documents, requests) → answers → record. One direction, no going back."""

from darumeru.evaluation.execute import OpenEngine, asked, evaluate, execute, open_planned, rescore, signature
from darumeru.evaluation.plan import FOUNDATION_FEWSHOT, Plan, prepare
from darumeru.evaluation.score import score, score_samples
from darumeru.inference.asking import Progress
from darumeru.options import validated
from darumeru.settings import Settings, Training, settings_of

__all__ = [
    "FOUNDATION_FEWSHOT", "OpenEngine", "Plan", "Progress", "Settings", "Training", "asked", "evaluate", "execute",
    "open_planned", "prepare", "rescore", "score", "score_samples", "settings_of", "signature", "validated",
]  # fmt: skip
