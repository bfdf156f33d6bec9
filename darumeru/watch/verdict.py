"""Verdict on a curve: rules that fire, the best point, a diagnosis; and the files that say so.

rules.jsonl   beside the runs: a line for each rule that fired and each diagnosis, with the evidence
best.json     beside the checkpoints: the best step, its value and its checkpoint
STOP          beside the checkpoints: `darumeru watch` asks the training to end; `StopFileCallback` obeys
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from darumeru.errors import UserError
from darumeru.files import dumps, write_json
from darumeru.watch.curve import MICRO_AVG, Metrics, Point, best
from darumeru.watch.diagnosis import Diagnosis, diagnose
from darumeru.watch.rules import Fired, Rule, check, known_metric, parse_rule

if TYPE_CHECKING:
    from darumeru.evaluation import Settings

STOP = "STOP"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a curve."""

    fired: tuple[Fired, ...]
    best: Point | None
    diagnosis: Diagnosis | None


@dataclass(frozen=True)
class Judge:
    """Rules and the metric whose best point is kept."""

    metrics: Metrics
    rules: tuple[Rule, ...] = ()
    keep_best: str | None = None

    def verdict(self, points: Sequence[Point], log: Sequence[Point] = ()) -> Verdict:
        """Return what evaluations and the Trainer's log entries say."""
        found = [check(rule, [*points, *log], self.metrics) for rule in self.rules]
        top = best(points, self.keep_best, self.metrics) if self.keep_best else None
        return Verdict(tuple(f for f in found if f), top, diagnose(points, self.metrics))


def make_judge(
    metrics: Metrics, rules: Sequence[str] = (), keep_best: str | None = None, patience: int | None = None
) -> Judge:
    """Return a judge from texts.

    Args:
        metrics: what the suite measures.
        rules: see `darumeru.watch.rules`.
        keep_best: the metric whose best point is kept.
        patience: also stop after that many evaluations without improvement of `keep_best` (`micro_avg` without it).

    Raises:
        UserError: a rule or a metric is not understood.
    """
    if keep_best is not None:
        known_metric(keep_best, metrics, "metric to keep the best of")
    texts = list(rules)
    if patience is not None:
        texts.append(f"no improvement of {keep_best or MICRO_AVG} for {patience}")
    return Judge(metrics, tuple(parse_rule(text, metrics) for text in texts), keep_best)


def check_race(race_against: str | None, settings: Settings, judge: Judge) -> None:
    """Refuse a race that cannot be held for the best.

    Raises:
        UserError: against something else than the best; the suite has no mean, or another metric's best is wanted.
    """
    from darumeru.race.challenge import check_challenge

    if race_against is None:
        return
    if race_against != "best":
        raise UserError(f"race_against '{race_against}' is not possible: 'best', or nothing.")
    if MICRO_AVG not in judge.metrics.titles:
        raise UserError("--race-against best needs tasks that count in the suite's mean; of these none does.")
    check_challenge(settings, judge.keep_best, MICRO_AVG)


def note(runs: Path, training: str, suite: str, said: Fired | Diagnosis, step: int) -> None:
    """Append to `rules.jsonl` a rule that fired or a diagnosis."""
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "run": training, "suite": suite, "step": step}
    if isinstance(said, Fired):
        entry |= {"rule": said.rule.text, "evidence": said.evidence, "action": "stop"}
    else:
        entry |= {"diagnosis": said.kind, "text": said.text}
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / "rules.jsonl").open("a", encoding="utf-8") as file:
        file.write(dumps(entry) + "\n")


def write_best(folder: Path, metric: str, top: Point, checkpoint: str | None) -> None:
    """Write `best.json`; `checkpoint` is a folder beside it, None where none was saved."""
    facts = {"metric": metric, "value": top.values[metric], "step": top.step, "tokens_seen": top.tokens_seen}
    write_json(folder / "best.json", facts | {"checkpoint": checkpoint, "run": top.run})
