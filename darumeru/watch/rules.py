"""Rules on the curve of a training: when to stop it, with the evidence. Pure functions; nothing is evaluated as code.

    darucopy_ru < 0.9 for 3              three evaluations in a row
    bpb_ru > 1.2                         one is enough
    no improvement of micro_avg for 5    five evaluations since the best one
    loss not finite                      the loss, or the norm of the gradient, is no number

A metric is `micro_avg`, a group or a task of the suite, or `loss`, whose points are the Trainer's log entries.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from darumeru.errors import UserError, unknown
from darumeru.watch.curve import GRAD_NORM, LOSS, Metrics, Point, best

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NAME = r"[A-Za-z_][\w.-]*"
_COMPARE = re.compile(rf"({_NAME})\s*(<=|>=|<|>)\s*({_NUMBER})(?:\s+for\s+(\d{{1,6}}))?")
_STAGNANT = re.compile(rf"no\s+improvement\s+of\s+({_NAME})\s+for\s+(\d{{1,6}})")
_FINITE = re.compile(r"loss\s+not\s+finite")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

GRAMMAR = "'METRIC < NUMBER [for K]' (or <=, >, >=), 'no improvement of METRIC for K', 'loss not finite'"


@dataclass(frozen=True)
class Rule:
    """A condition under which a training is stopped."""

    text: str
    kind: Literal["compare", "stagnant", "finite"]
    metric: str
    operator: str = ""
    bound: float = 0.0
    times: int = 1
    """Points in a row; of `stagnant` the points since the best one."""


@dataclass(frozen=True)
class Fired:
    """A rule that holds, and the points that say so, the latest last."""

    rule: Rule
    points: tuple[Point, ...]

    @property
    def step(self) -> int:
        """The step at which it fired."""
        return self.points[-1].step

    @property
    def evidence(self) -> list[dict[str, Any]]:
        """`[{"step", "tokens_seen", "value"}]`; a value that is no number as text, as JSON has none."""
        found = []
        for point in self.points:
            metric, value = _shown(self.rule, point)
            entry: dict[str, Any] = {"step": point.step, "tokens_seen": point.tokens_seen, "metric": metric}
            found.append(entry | {"value": value if math.isfinite(value) else str(value)})
        return found

    def __str__(self) -> str:
        """`darucopy_ru < 0.9 for 3: 0.880 at step 100, 0.870 at step 200, 0.850 at step 300`."""
        parts = []
        for point in self.points:
            metric, value = _shown(self.rule, point)
            parts.append(f"{'' if metric == self.rule.metric else metric + ' '}{value:.4g} at step {point.step}")
        if self.rule.kind == "stagnant":
            parts[0] = f"best {parts[0]}, then {parts[1]}"
            del parts[1]
        return f"{self.rule.text}: {', '.join(parts)}"


def _shown(rule: Rule, point: Point) -> tuple[str, float]:
    """Return the metric and value of a point that a rule is about."""
    broken_gradient = rule.kind == "finite" and math.isfinite(point.values.get(LOSS, 0.0))
    metric = GRAD_NORM if broken_gradient else rule.metric
    return metric, point.values[metric]


def parse_rule(text: str, metrics: Metrics) -> Rule:
    """Return a rule from its text.

    Raises:
        UserError: it is no rule, its metric is not measured by the suite, or K is 0.
    """
    line = " ".join(text.split())
    if match := _COMPARE.fullmatch(line):
        name, sign, number, times = match.groups()
        rule = Rule(line, "compare", name, sign, float(number), int(times or 1))
    elif match := _STAGNANT.fullmatch(line):
        rule = Rule(line, "stagnant", match[1], times=int(match[2]))
    elif _FINITE.fullmatch(line):
        rule = Rule(line, "finite", LOSS)
    else:
        raise UserError(f"Rule '{text}' is not understood. A rule is {GRAMMAR}.")
    known_metric(rule.metric, metrics, f"metric in rule '{line}'")
    if rule.times < 1:
        raise UserError(f"Rule '{line}': 'for {rule.times}' would always hold. K is 1 or more.")
    if not math.isfinite(rule.bound):
        raise UserError(f"Rule '{line}': the number is too large to be one.")
    return rule


def known_metric(name: str, metrics: Metrics, what: str = "metric") -> str:
    """Return the name of a metric, checked.

    Raises:
        UserError: the suite does not measure it; the message names the nearest and all.
    """
    if name not in metrics.names:
        raise unknown(what, name, metrics.names)
    return name


def check(rule: Rule, points: Sequence[Point], metrics: Metrics) -> Fired | None:
    """Return whether a rule holds at the end of a curve.

    Points without the rule's metric are passed over, so evaluations and log entries may come together. A comparison with a value
    that is no number does not hold, and such a value is no improvement.

    Args:
        rule: the rule.
        points: the curve, in any order.
        metrics: says which metrics are better when lower.
    """
    if rule.kind == "finite":
        # fp16 training has infinite gradient norms where its loss scale is too high: only NaN says that it broke.
        broken = [
            p
            for p in sorted(points, key=lambda p: p.step)
            if not math.isfinite(p.values.get(LOSS, 0.0)) or math.isnan(p.values.get(GRAD_NORM, 0.0))
        ]
        return Fired(rule, tuple(broken[:1])) if broken else None
    known = sorted((p for p in points if rule.metric in p.values), key=lambda p: p.step)
    if rule.kind == "stagnant":
        top = best(known, rule.metric, metrics)
        if top is None or len(known) - 1 - known.index(top) < rule.times:
            return None
        return Fired(rule, (top, *known[-rule.times :]))
    last = known[-rule.times :]
    holds = _OPERATORS[rule.operator]
    if len(last) < rule.times or not all(holds(p.values[rule.metric], rule.bound) for p in last):
        return None
    return Fired(rule, tuple(last))
