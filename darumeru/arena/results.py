"""From answers and verdicts to scores: strengths, win rates, what the judge is worth, what lengths have to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from darumeru.arena.judge import Verdict
from darumeru.requests import Answer, Request
from darumeru.scoring.aggregate import Floats
from darumeru.scoring.bootstrap import RESAMPLES, seed_of
from darumeru.scoring.bradley_terry import BradleyTerry, expected, fit
from darumeru.scoring.compare import holm, shared_ranks, sign_test
from darumeru.scoring.interval import LEVEL
from darumeru.scoring.judging import Judging, judge_judge

WEAK = 0.2
"""Below this kappa agreement is called slight (Landis and Koch 1977)."""

Answers = Mapping[str, Mapping[int, tuple[Request, Answer]]]


def points_of(names: Sequence[str], count: int, verdicts: Sequence[Verdict]) -> Floats:
    """Return (P, M, M) points: 1 to the winner, ½ to both sides of a tie, 0 where nothing was judged."""
    place = {name: i for i, name in enumerate(names)}
    points = np.zeros((count, len(names), len(names)))
    for v in verdicts:
        if v.winner is not None:
            a, b = place[v.a], place[v.b]
            share = {"a": 1.0, "b": 0.0, "tie": 0.5}[v.winner]
            points[v.prompt, a, b], points[v.prompt, b, a] = share, 1 - share
    return points


def score(names: Sequence[str], count: int, answers: Answers, verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    """Return all that scores.json states.

    Args:
        names: the models.
        count: how many prompts there are.
        answers: of each model, by the prompt's number.
        verdicts: on all pairs and prompts.
        seed: of the bootstrap.
    """
    points = points_of(names, count, verdicts)
    judged = np.flatnonzero(points.any((1, 2)))
    drawn = seed_of(seed, "arena", count)
    fitted = fit(points[judged], drawn) if len(judged) else None
    opinions = [v for v in verdicts if v.opinions]
    judging = (
        judge_judge(np.array([[o.choice for o in v.opinions] for v in opinions]), [v.prompt for v in opinions], drawn)
        if opinions
        else None
    )
    lengths = length_bias(answers, verdicts)
    result = {
        "prompts": count,
        "verdicts": _verdict_counts(verdicts),
        "models": _models(names, answers, verdicts, fitted, len(judged)),
        "pairs": _pairs(names, verdicts, fitted),
        "judge": None if judging is None else judging.to_json(),
        "length": lengths,
        "level": LEVEL,
        "resamples": RESAMPLES,
    }
    return result | {"remarks": remarks(names, result, judging, fitted)}


def _verdict_counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    counts = dict.fromkeys(("agreed", "disagreed", "same answer", "unjudged"), 0)
    for v in verdicts:
        counts[v.reason] += 1
    return {"all": len(verdicts), **counts}


def _tally(verdicts: Sequence[Verdict], name: str) -> dict[str, int]:
    """Return how a model fared."""
    tally = {"wins": 0, "losses": 0, "ties": 0, "unjudged": 0}
    for v in verdicts:
        if name in (v.a, v.b):
            side = "a" if v.a == name else "b"
            key = (
                "unjudged"
                if v.winner is None
                else "ties"
                if v.winner == "tie"
                else "wins"
                if v.winner == side
                else "losses"
            )
            tally[key] += 1
    return tally


def _models(
    names: Sequence[str], answers: Answers, verdicts: Sequence[Verdict], fitted: BradleyTerry | None, units: int
) -> list[dict[str, Any]]:
    """Return the models, the strongest first; those that cannot be told apart share a rank."""
    rows = []
    nothing = {"value": None, "low": None, "high": None}
    ranks: list[int | None] = [None] * len(names)
    order = list(range(len(names)))
    if fitted is not None:
        ranks = list(shared_ranks(expected(fitted.strength), expected(fitted.strength_draws).T, units))
        order = sorted(order, key=lambda i: -float(fitted.strength[i]))
    for i in order:
        given = list(answers[names[i]].values())
        preferences = [
            p if v.a == names[i] else 1 - p
            for v in verdicts
            if names[i] in (v.a, v.b) and (p := v.preference) is not None
        ]
        rows.append(
            {
                "name": names[i],
                "rank": ranks[i],
                "elo": nothing if fitted is None else fitted.elo(i),
                "win_rate": nothing if fitted is None else fitted.share(i),
                "preference": float(np.mean(preferences)) if preferences else None,
                **_tally(verdicts, names[i]),
                "answers": _answer_facts(given),
            }
        )
    return rows


def _answer_facts(given: Sequence[tuple[Request, Answer]]) -> dict[str, Any]:
    texts = [len(a.text) for _, a in given]
    return {
        "count": len(given),
        "characters_mean": float(np.mean(texts)) if texts else None,
        "characters_median": float(np.median(texts)) if texts else None,
        "tokens_mean": float(np.mean([len(a.tokens) for _, a in given])) if given else None,
        "at_limit": sum(a.finish == "length" for _, a in given),
        "empty": sum(not a.text.strip() for _, a in given),
        "prompts_cut": sum(r.truncated > 0 for r, _ in given),
        "approximate": sum(a.approximate for _, a in given),
    } | _thinking_facts([a for _, a in given])


def _thinking_facts(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what thinking cost; nothing where no model thought."""
    if not any(a.thought_tokens or a.unfinished for a in answers):
        return {}
    return {
        "thought_tokens_mean": float(np.mean([len(a.thought_tokens) for a in answers])),
        "unfinished_thoughts": sum(a.unfinished for a in answers),
    }


def _pairs(names: Sequence[str], verdicts: Sequence[Verdict], fitted: BradleyTerry | None) -> list[dict[str, Any]]:
    """Return for every two models who won how often, and if it is chance (sign test on decided prompts, Holm over pairs)."""
    rows: list[dict[str, Any]] = []
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        tally = _tally([v for v in verdicts if (v.a, v.b) == (a, b)], a)
        share = {"value": None, "low": None, "high": None} if fitted is None else fitted.share(i, j)
        rows.append({"a": a, "b": b, **tally, "win_rate": share, "p": sign_test(tally["wins"], tally["losses"])})
    for row, p in zip(rows, holm([r["p"] for r in rows]), strict=True):
        row["p_holm"] = p
    return rows


def length_bias(answers: Answers, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how often the longer answer (in characters) won where one won: share, exact interval, two-sided binomial p for ½.

    A hint only: longer answers may be better. Clopper and Pearson (1934) for the interval.
    """
    from scipy.stats import binomtest

    longer = decided = 0
    for v in verdicts:
        if v.winner in ("a", "b"):
            a, b = (len(answers[name][v.prompt][1].text) for name in (v.a, v.b))
            if a != b:
                decided += 1
                longer += (a > b) == (v.winner == "a")
    if not decided:
        return {"decided": 0, "longer_won": 0, "share": {"value": None, "low": None, "high": None}, "p": None}
    test = binomtest(longer, decided)
    bounds = test.proportion_ci(LEVEL, "exact")
    share = {"value": longer / decided, "low": float(bounds.low), "high": float(bounds.high)}
    return {"decided": decided, "longer_won": longer, "share": share, "p": float(test.pvalue)}


def remarks(
    names: Sequence[str], result: Mapping[str, Any], judging: Judging | None, fitted: BradleyTerry | None
) -> list[str]:
    """Return what a reader has to know before believing the numbers, the gravest first."""
    found = []
    counts = result["verdicts"]
    if judging is None:
        found.append("The judge was asked nothing: no two different answers that fit into its context.")
    elif judging.chance:
        found.append(
            f"DO NOT TRUST THESE SCORES: the judge agrees with itself in both orders on {judging.consistency['value']:.0%} of "
            f"{judging.pairs} pairs; choosing places without reading would give {judging.expected:.0%} "
            f"(p = {judging.p_chance:.2g}). Take a stronger judge, or more prompts."
        )
    elif judging.kappa is not None and judging.kappa < WEAK:
        found.append(
            f"A weak judge: it agrees with itself hardly more often than by chance (kappa {judging.kappa:.2f}), so most "
            "verdicts are ties and differences look smaller than they are."
        )
    if judging is not None and judging.biased:
        place = "first" if (judging.bias["value"] or 0.0) > 0 else "second"
        found.append(
            f"The judge prefers the {place} place: {judging.first:.0%} of its choices are the first answer, "
            f"{judging.second:.0%} the second. Only verdicts on which both orders agree count as wins."
        )
    if counts["unjudged"]:
        found.append(f"{counts['unjudged']} of {counts['all']} pairs were not judged; verdicts.jsonl says why of each.")
    if fitted is not None and len(groups := fitted.groups) > 1:
        text = " | ".join(", ".join(names[i] for i in group) for group in groups)
        found.append(
            f"No model behind a bar won a point from one before it: {text}. How far apart they are is bounded only by the prior "
            "(half a win for each side of every pair); read such differences as 'at least'."
        )
    length = result["length"]
    if length["p"] is not None and length["p"] < 0.05:
        which = "longer" if length["share"]["value"] > 0.5 else "shorter"
        share = max(length["share"]["value"], 1 - length["share"]["value"])
        found.append(
            f"The {which} answer won {share:.0%} of {length['decided']} decided pairs (p = {length['p']:.2g}): the judge may go "
            "by length."
        )
    for row in result["models"]:
        facts = row["answers"]
        if facts["prompts_cut"]:
            found.append(f"{row['name']}: {facts['prompts_cut']} prompts were too long and were truncated.")
        if unfinished := facts.get("unfinished_thoughts"):
            found.append(
                f"{row['name']}: {unfinished} of {facts['count']} thoughts did not end (--thinking-budget): empty answers."
            )
        if facts["empty"]:
            found.append(f"{row['name']}: {facts['empty']} of {facts['count']} answers are empty.")
        if facts["at_limit"] > facts["count"] / 2:
            found.append(f"{row['name']}: {facts['at_limit']} of {facts['count']} answers hit --max-tokens.")
        if facts["approximate"]:
            found.append(f"{row['name']}: {facts['approximate']} answers are approximate (--approximate).")
    return found
