"""What every task's metrics give for fixed answers: `python tests/support/scoring_pins.py` writes them down anew.

The answers are made without a model, from the rows of the mini bundle: right, half right, empty; the labels' probabilities go
round. The fingerprints lie beside the tests in `scoring_pins.json`, each with the scoring version that it belongs to.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from darumeru.data.bundle import MINI
from darumeru.files import fingerprint
from darumeru.requests import Answer, Query
from darumeru.task import DarumeruTask
from darumeru.task.score import table_of
from darumeru.task.suite import Catalogue

PINS = Path(__file__).parents[1] / "unit" / "scoring_pins.json"
DOCUMENTS = 8


def _answer(query: Query, gold: str, turn: int) -> Answer:
    if query.kind == "likelihood":
        return Answer("", logprobs=(-float(10 + turn),))
    if query.kind in ("choose", "rank"):
        count = len(query.options)
        return Answer("", logprobs=tuple(-1.0 - (i + turn) % count / 2 for i in range(count)))
    words = gold.split()
    text = (gold, " ".join(words[: math.ceil(len(words) / 2)]), "", "Нет, " + gold.upper())[turn % 4]
    return Answer("", text=text, tokens=tuple(range(len(text) // 3)), finish="stop")


def fingerprint_of(task: DarumeruTask) -> str:
    """Return the fingerprint of what the task's metrics give, document by document and over all."""
    scores = []
    for turn, doc in enumerate(task.docs()[:DOCUMENTS]):
        queries = task.asked(doc)
        gold = task.gold_text(doc)
        answers = [_answer(query, gold, turn + i) for i, query in enumerate(queries)]
        reference = [None if q.reference is None else max(1, len(q.reference) // 3) for q in queries]
        scores.append(task.rated(doc, answers, reference))
    table = table_of(scores)
    documents = [{k: round(float(v), 9) for k, v in s.metrics.items()} for s in scores]
    values = {name: round(float(f(table, name, table.ones())[0]), 9) for name, f in task.metrics.items()}
    return fingerprint([documents, [[s.pred, s.ties, s.cluster, s.stratum] for s in scores], values, task.primary])


def all_tasks() -> dict[str, DarumeruTask]:
    """Return all tasks on the mini bundle; the corpus of `bpb_corpus` is one of its texts."""
    catalogue = Catalogue()
    return dict(catalogue.load(catalogue.tasks(), "mini", corpus=MINI / "cp_para_ru" / "test.jsonl"))


def current() -> dict[str, dict[str, Any]]:
    """Return scoring version and fingerprint of all tasks."""
    return {n: {"scoring": task.SCORING, "sha256": fingerprint_of(task)} for n, task in sorted(all_tasks().items())}


if __name__ == "__main__":
    PINS.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
