"""What a rule is about, measured on a run: an estimate with its interval, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.gate.policy import SUITE, Rule
from darumeru.leaderboard.entry import Bounded, Entry, Result
from darumeru.leaderboard.load import suite_of
from darumeru.leaderboard.means import counted_groups, draws_of
from darumeru.record.draws import paired_draws
from darumeru.record.sample import Asked, Sample, table_of
from darumeru.scoring.aggregate import AGGREGATES, Floats, Table, mean
from darumeru.scoring.bootstrap import units
from darumeru.scoring.compare import degrees_of_mean, difference, paired_shares
from darumeru.scoring.interval import FLAT, quantile, student
from darumeru.scoring.margin import MeanOfTasks, Part
from darumeru.scoring.summary import with_interval

DENSITY = "symbols_per_token"


@dataclass(frozen=True)
class Side:
    """A run with its samples."""

    entry: Entry
    samples: Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Measured:
    """A number, and what is known of it."""

    limit: float
    """What it is held against: the bound; of a margin its negative, or, where lower is better, the margin."""
    at_most: bool = False
    """True where values above the limit break the rule."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    documents: int = 0
    estimate: MeanOfTasks | None = None
    """None where nothing can be tested."""
    reason: str | None = None
    """Why nothing can be tested."""


def measure(rule: Rule, tasks: Sequence[str], new: Side, old: Side | None) -> Measured:
    """Return what a rule is about.

    Args:
        rule: the rule.
        tasks: those of its scope.
        new: the run.
        old: the baseline.

    Raises:
        UserError: the rule has no meaning for these tasks, or the baseline was asked something else.
    """
    if lacking := [t for t in tasks if t not in new.entry.tasks]:
        return Measured(rule.bound, reason=f"the run was not asked {', '.join(lacking)}")
    if rule.kind == "non_inferiority":
        assert old is not None  # noqa: S101 - `gate` asks for it
        return _difference(rule, tasks, new, old)
    if rule.kind == "minimum_score":
        return _score(rule, tasks, new)
    if rule.kind == DENSITY:
        return _density(rule, tasks, new)
    return _share(rule, tasks, new)


def _difference(rule: Rule, tasks: Sequence[str], new: Side, old: Side) -> Measured:
    """Return the paired difference, run minus baseline."""
    for task in tasks:
        _asked_alike(task, new.entry, old.entry)
    lower = _lower(tasks, new.entry)
    limit = rule.bound if lower else -rule.bound
    drawn = [draws_of(side.entry, tasks) for side in (old, new)]
    a, b = (float(np.mean([side.entry.tasks[t].score.value for t in tasks])) for side in (old, new))
    results = [new.entry.tasks[t] for t in tasks]
    size = _documents(results)
    if drawn[0] is None or drawn[1] is None:
        return Measured(limit, lower, b - a, documents=size, reason=_no_draws(tasks, new.entry, old.entry))
    parts, gaps = [], []
    for task in tasks:
        x, y = old.entry.tasks[task].draws, new.entry.tasks[task].draws
        assert x is not None and y is not None  # noqa: S101 - `draws_of` has them
        gaps.append(y.astype(np.float64) - x)
        parts.append(_part(new, task, _error(gaps[-1]), _flips(task, new, old)))
    df = degrees_of_mean(gaps, [r.df for r in results])
    estimate = MeanOfTasks(b - a, _error(drawn[1] - drawn[0]), tuple(parts), df)
    found = difference(a, b, drawn[0], drawn[1], estimate.units, df)
    low, high = found.low, found.high
    first, single = parts[0], len(tasks) == 1 and len(results[0].record.primary) == 1
    if estimate.error < FLAT and abs(b - a) < FLAT:  # no document was answered differently
        low, high = paired_shares(0, 0, size)
    elif single and first.flips is not None and first.units == size:  # as `compare` does
        low, high = paired_shares(*first.flips, size)
    return Measured(limit, lower, b - a, low, high, size, estimate)


def _asked_alike(task: str, new: Entry, old: Entry) -> None:
    """Refuse a baseline that was asked something else."""
    if task not in old.tasks:
        raise UserError(
            f"The baseline has not answered '{task}', which a rule compares. Run it with the same suite and tasks."
        )
    if new.tasks[task].key != old.tasks[task].key:
        counts = " and ".join(str(e.tasks[task].documents) for e in (new, old))
        raise UserError(
            f"Run and baseline answered other documents in '{task}' ({counts}), so nothing can be paired. "
            "Run both on the same data, with the same --limit and --seed."
        )
    pair = (new.stated, old.stated)
    facts: dict[str, list[object]] = {
        "prompt template": [h.tasks[task].wording for h in pair],
        "task version": [h.tasks[task].version for h in pair],
        "mode": [h.mode for h in pair],
        "number of examples": [h.num_fewshot for h in pair],
        "thinking": [h.how_thought for h in pair],
        "way in which answers are drawn": [h.how_drawn for h in pair],
        "--likelihood": [h.likelihood for h in pair],
    }
    for what, (x, y) in facts.items():
        if x != y:
            raise UserError(
                f"Run and baseline were not asked alike in '{task}': the {what} differs ({x} and {y}). "
                "Run one of them again as the other was."
            )


def _score(rule: Rule, tasks: Sequence[str], new: Side) -> Measured:
    """Return a score with the interval of the record."""
    entry = new.entry
    if _lower(tasks, entry):
        raise UserError(
            f"minimum_score: '{rule.scope}' is better when lower, so a minimum has no meaning. "
            "Hold it against a baseline with non_inferiority."
        )
    counted = {t for g in counted_groups(suite_of([entry])) for t in g.tasks}
    if set(tasks) <= counted and not 0 <= rule.bound <= 1:
        raise UserError(f"minimum_score: {rule.scope}: {rule.bound:g} is not possible. Its scores lie between 0 and 1.")
    size = _documents([entry.tasks[t] for t in tasks])
    score, draws = entry.scores.get("suite" if rule.scope == SUITE else rule.scope), draws_of(entry, tasks)
    if score is None or draws is None:
        value = score.value if score else None
        return Measured(rule.bound, value=value, documents=size, reason=_no_draws(tasks, entry))
    above, results = score.value > rule.bound, [entry.tasks[t] for t in tasks]
    parts, drawn = [], []
    for task, result in zip(tasks, results, strict=True):
        assert result.draws is not None  # noqa: S101 - `draws_of` has them
        drawn.append(result.draws.astype(np.float64))
        part = _part(new, task, _side_error(result.score, above, result.df, drawn[-1]))
        # The mean of an accuracy and a correlation is no share.
        parts.append(replace(part, right_or_wrong=part.right_or_wrong and len(result.record.primary) == 1))
    df = degrees_of_mean(drawn, [r.df for r in results])
    error = _side_error(score, above, df, draws)
    estimate = MeanOfTasks(score.value, error, tuple(parts), df)
    return Measured(rule.bound, False, score.value, score.low, score.high, size, estimate)


def _side_error(score: Bounded, below: bool, df: float, draws: Floats) -> float:
    """Return the standard error towards a bound that a score's interval has, which is skewed near 0 and 1.

    So a test at the interval's level says what the interval says.
    """
    if score.low is None or score.high is None:
        return _error(draws)
    return (score.value - score.low if below else score.high - score.value) / quantile(df=df)


def _density(rule: Rule, tasks: Sequence[str], new: Side) -> Measured:
    """Return the symbols per token of the answers, the mean over tasks."""
    entry = new.entry
    if lacking := [t for t in tasks if DENSITY not in entry.tasks[t].record.metrics]:
        known = [t for t, r in entry.tasks.items() if DENSITY in r.record.metrics]
        raise UserError(
            f"minimum_symbols_per_token: {', '.join(lacking)} does not measure symbols per token. "
            f"These do: {', '.join(known) or 'no task of the run'}."
        )
    results = [entry.tasks[t] for t in tasks]
    value, size = float(np.mean([r.record.metrics[DENSITY].value or 0.0 for r in results])), _documents(results)
    drawn = []
    for task in tasks:
        result = entry.tasks[task]
        aggregate = AGGREGATES.get(result.record.aggregates.get(DENSITY) or "mean", mean)
        draws = paired_draws(table_of(new.samples[task], [DENSITY]), {DENSITY: aggregate}, result.key)
        if draws is None:
            return Measured(rule.bound, value=value, documents=size, reason=_no_draws(tasks, entry))
        drawn.append(draws.astype(np.float64))
    together: Floats = np.mean(drawn, axis=0)
    parts = [replace(_part(new, t, _error(d)), right_or_wrong=False) for t, d in zip(tasks, drawn, strict=True)]
    df = degrees_of_mean(drawn, [r.df for r in results])
    estimate = MeanOfTasks(value, _error(together), tuple(parts), df)
    return Measured(rule.bound, False, value, *student(value, estimate.error, df), size, estimate)


_COUNTED: dict[str, Callable[[Asked], bool]] = {
    "unfinished": lambda r: r.answer.finish == "length",
    "empty": lambda r: not r.answer.text.strip(),
    "truncated": lambda r: r.truncated > 0,
}


def _share(rule: Rule, tasks: Sequence[str], new: Side) -> Measured:
    """Return a share of answers, all tasks together: the mean over documents of the share of a document's answers."""
    entry, counts = new.entry, _COUNTED[rule.kind]
    shares: list[float] = []
    clusters: list[str | None] = []
    answered: list[str] = []
    for task in tasks:
        before = len(shares)
        for sample in new.samples[task]:
            if asked := [r for r in sample.requests if rule.kind == "truncated" or r.answer.generated]:
                shares.append(float(np.mean([counts(r) for r in asked])))
                clusters.append(None if sample.cluster is None else f"{task}\0{sample.cluster}")
        answered += [task] if len(shares) > before else []
    if not shares:
        return Measured(rule.bound, True, reason="its tasks choose among labels, so no answer was written")
    nothing = [None] * len(shares)
    table = Table.build({rule.kind: shares}, nothing, nothing, clusters, nothing)
    value, count = float(np.mean(shares)), units(table)
    draws = paired_draws(table, {rule.kind: mean}, fingerprint([entry.tasks[t].key for t in answered]))
    if draws is None:
        return Measured(rule.bound, True, value, documents=len(shares), reason="one document says nothing of others")
    drawn = draws.astype(np.float64)
    bounds = with_interval(value, drawn, count)
    part = Part(
        _error(drawn), count, sum(_available(entry, t) for t in answered), len(shares), set(shares) <= {0.0, 1.0}
    )
    estimate = MeanOfTasks(value, part.error, (part,), max(count - 1, 1))
    return Measured(rule.bound, True, value, bounds["low"], bounds["high"], len(shares), estimate)


def _lower(tasks: Sequence[str], entry: Entry) -> bool:
    return all(not entry.tasks[t].higher_is_better for t in tasks)


def _documents(results: Iterable[Result]) -> int:
    return sum(r.documents for r in results)


def _error(draws: Floats) -> float:
    return float(np.std(draws, ddof=1))


def _available(entry: Entry, task: str) -> int:
    """Return the independent units of a task in the whole benchmark, as far as the header tells its documents."""
    result = entry.tasks[task]
    whole = entry.stated.tasks[task].of or result.documents
    return max(result.units, round(whole * result.units / result.documents))


def _part(side: Side, task: str, error: float, flips: tuple[int, int] | None = None) -> Part:
    result = side.entry.tasks[task]
    available = _available(side.entry, task)
    return Part(error, result.units, available, result.documents, _right_or_wrong(side, task), flips)


def _right_or_wrong(side: Side, task: str) -> bool:
    primary = side.entry.tasks[task].record.primary
    return all(s.score[m] in (0, 1) for s in side.samples[task] for m in primary)


def _flips(task: str, new: Side, old: Side) -> tuple[int, int] | None:
    """Return the documents that the run won and lost against the baseline; None where an answer may be half right."""
    if not all(_right_or_wrong(side, task) for side in (new, old)):
        return None
    primary = new.entry.tasks[task].record.primary
    pairs = zip(new.samples[task], old.samples[task], strict=True)
    gains = np.array([a.mark(primary) - b.mark(primary) for a, b in pairs])
    return int((gains > 0).sum()), int((gains < 0).sum())


def _no_draws(tasks: Sequence[str], *entries: Entry) -> str:
    if lost := [t for t in tasks if any(not e.tasks[t].reproduced for e in entries)]:
        return f"the samples of {', '.join(lost)} do not give the recorded score ('darumeru rescore RUN')"
    single = [t for t in tasks if any(e.tasks[t].draws is None for e in entries)]
    return f"{', '.join(single)}: one independent document says nothing of others"
