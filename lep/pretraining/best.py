"""Which checkpoint of a training is its result: the one with the fewest bits per byte among those that keep their limits.

`--keep-best bits_per_byte_ru --within "bits_per_byte_en 1%"`: the new language as good as it gets, while the old one costs at
most one per cent more than it did in the model before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darumeru.errors import UserError
from lep.measure.held_out import BITS

_LOG = "eval_"
"""What the Trainer's log puts before the name of a measure."""


@dataclass(frozen=True)
class Limit:
    """A measure may be at most `most`; or, where that is None, at most (1 + `more`) times what it was before."""

    measure: str
    most: float | None = None
    more: float = 0.0

    def excess(self, value: float, before: Mapping[str, float]) -> float:
        """How far above the limit a value is, as a share of the limit; 0 where it is kept."""
        most = self.most if self.most is not None else before[self.measure] * (1 + self.more)
        return max(value / most - 1, 0.0)


def parse_limits(values: Sequence[str]) -> list[Limit]:
    """`bits_per_byte_en 1%` (of the value before), or `bits_per_byte_en 1.45`, as limits.

    Raises:
        UserError: one is neither.
    """
    found = []
    for value in values:
        match = re.fullmatch(r"\s*(\S+)\s+(\d+(?:\.\d+)?)\s*(%?)\s*", value)
        if match is None or not (float(match[2]) or match[3]):
            raise UserError(
                f'--within {value!r}: write a measure and how far it may rise, such as "{BITS}_en 1%", or what it may be at '
                f'most, such as "{BITS}_en 1.45".'
            )
        number = float(match[2])
        found.append(Limit(match[1], None, number / 100) if match[3] else Limit(match[1], number))
    return found


@dataclass(frozen=True)
class Choice:
    """A choice among checkpoints: the lowest value of a measure among those that keep all limits."""

    measure: str
    limits: Sequence[Limit]

    @classmethod
    def of(cls, measure: str | None, within: Sequence[str], names: Collection[str]) -> Choice | None:
        """Return the choice by a held-out measure; None where the measure is none of these texts', but a benchmark's.

        Args:
            measure: of `--keep-best`.
            within: of `--within`.
            names: of the held-out texts.

        Raises:
            UserError: a limit without such a measure, or on one that is not measured.
        """
        known = [BITS, *(f"{BITS}_{name}" for name in names if len(names) > 1)] if names else []
        limits = parse_limits(within)
        if measure not in known and not limits and not str(measure).startswith(BITS):
            return None
        for wanted in (measure, *(limit.measure for limit in limits)):
            if wanted not in known:
                option = "--keep-best" if wanted == measure else "--within"
                raise UserError(
                    f"{option} {wanted or 'is missing: it'} is no measure of the held-out texts; these are "
                    f"{', '.join(known) or 'none'}. Name texts with --held-out NAME=FILE."
                )
        return cls(str(measure), limits)

    @property
    def relative(self) -> bool:
        """Whether a limit is relative to what was measured before."""
        return any(limit.most is None for limit in self.limits)

    def measured(self, log: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
        """Return the measures of each step at which all were taken that the choice looks at."""
        needed = {_LOG + name for name in (self.measure, *(limit.measure for limit in self.limits))}
        return {
            int(entry["step"]): {key.removeprefix(_LOG): float(value) for key, value in entry.items() if _LOG in key}
            for entry in log
            if needed <= entry.keys()
        }

    def best(
        self, log: Sequence[Mapping[str, Any]], steps: Collection[int], before: Mapping[str, float] | None = None
    ) -> tuple[int, bool] | None:
        """Return the step that is best, and whether it keeps its limits; None where nothing was measured.

        Where none keeps them, the one that is least above them.

        Args:
            log: the Trainer's `log_history`.
            steps: of the checkpoints.
            before: measures that limits in per cent are relative to; those of step 0 where None.
        """
        measured = self.measured(log)
        reference = before if before is not None else measured.get(0, {})
        ranks = [
            (sum(limit.excess(values[limit.measure], reference) for limit in self.limits), values[self.measure], step)
            for step, values in sorted(measured.items())
            if step in steps
        ]
        if not ranks:
            return None
        excess, _, step = min(ranks)
        return step, excess == 0
