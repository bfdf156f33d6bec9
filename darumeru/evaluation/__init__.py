"""Evaluating a model: settings → plan (tasks, documents, requests) → answers → record. One direction, no going back."""

from darumeru.evaluation.execute import (
    ask,
    asked,
    engine_options,
    engine_version,
    evaluate,
    execute,
    load,
    rescore,
    signature,
)
from darumeru.evaluation.plan import (
    FOUNDATION_FEWSHOT,
    Plan,
    Progress,
    answer_tokens,
    engine_facts,
    model_facts,
    prepare,
    requests_sha256,
    server_of,
)
from darumeru.evaluation.score import score, score_samples
from darumeru.options import validated
from darumeru.settings import Settings, Training, settings_of

__all__ = [
    "FOUNDATION_FEWSHOT", "Plan", "Progress", "Settings", "Training", "answer_tokens", "ask", "asked", "engine_facts",
    "engine_options", "engine_version", "evaluate", "execute", "load", "model_facts", "prepare", "requests_sha256", "rescore",
    "score", "score_samples", "server_of", "settings_of", "signature", "validated",
]  # fmt: skip
