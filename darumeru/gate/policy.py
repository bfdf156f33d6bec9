"""A policy: the rules of a gate as a YAML file.

    version: 1
    alpha: 0.025                              # level of the rules' one-sided tests, after Holm's correction
    power: 0.8                                # for the documents that an undecided rule would need
    non_inferiority: {NAME: MARGIN}           # not worse than the baseline by more than the margin
    minimum_score: {NAME: SCORE}
    maximum_share:                            # of answers
      unfinished: {NAME: SHARE}               # that hit the token limit
      empty: {NAME: SHARE}
      truncated: {NAME: SHARE}                # whose prompt was truncated
    minimum_symbols_per_token: {NAME: NUMBER}

NAME is a task, a group, or `micro_avg`, the whole suite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from darumeru.errors import UserError, unknown
from darumeru.files import read_yaml
from darumeru.options import Strict

TEMPLATE = Path(__file__).parent / "release.yaml"
"""A policy to begin with."""

SUITE = "micro_avg"
"""The whole suite in a policy."""

Margin = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
"""A difference of scores. 0: not worse at all, which only a better model can show."""
Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
"""No number of answers shows that a share is 0, so that a maximum is more."""
Density = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]

Kind = Literal["non_inferiority", "minimum_score", "unfinished", "empty", "truncated", "symbols_per_token"]


@dataclass(frozen=True)
class Rule:
    """One line of a policy."""

    kind: Kind
    scope: str
    """A task, a group, or `micro_avg`."""
    bound: float
    """Margin, minimum or maximum."""


class Shares(Strict):
    """Maxima for shares of answers."""

    unfinished: dict[str, Share] = {}
    empty: dict[str, Share] = {}
    truncated: dict[str, Share] = {}


class Policy(Strict):
    """The rules of a gate; see the module."""

    version: Literal[1]
    alpha: float = Field(0.025, strict=True, gt=0, lt=0.5)
    """Level of each one-sided test, after correction: 2.5 %, as in trials, goes with 95 % intervals."""
    power: float = Field(0.8, strict=True, gt=0.5, lt=1)
    """With which the documents decide that an undecided rule is said to need."""
    non_inferiority: dict[str, Margin] = {}
    minimum_score: dict[str, Bound] = {}
    maximum_share: Shares = Shares()
    minimum_symbols_per_token: dict[str, Density] = {}

    def rules(self) -> Iterator[Rule]:
        """Yield the rules in the order of the file's sections."""
        sections: list[tuple[Kind, Mapping[str, float]]] = [
            ("non_inferiority", self.non_inferiority),
            ("minimum_score", self.minimum_score),
            ("unfinished", self.maximum_share.unfinished),
            ("empty", self.maximum_share.empty),
            ("truncated", self.maximum_share.truncated),
            ("symbols_per_token", self.minimum_symbols_per_token),
        ]
        for kind, bounds in sections:
            for scope, bound in bounds.items():
                yield Rule(kind, scope, bound)


def read_policy(file: Path) -> Policy:
    """Return a policy from its YAML file.

    Raises:
        UserError: it is missing, no YAML mapping, has an unknown key or an impossible value, or no rule.
    """
    if not file.is_file():
        raise UserError(f"Policy '{file}' does not exist. 'darumeru gate --template' prints one to begin with.")
    content = read_yaml(file, "Policy")
    if not isinstance(content, dict):
        raise UserError(
            f"Policy '{file}' must be a mapping of keys, such as 'version: 1' and 'non_inferiority: {{…}}'."
        )
    # A section whose lines are all comments is empty, not a fault.
    policy = _checked(file, {key: value for key, value in content.items() if value is not None})
    if not any(policy.rules()):
        raise UserError(f"Policy '{file}' has no rule. 'darumeru gate --template' prints some to begin with.")
    return policy


def _checked(file: Path, content: Mapping[Any, Any]) -> Policy:
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        *above, key = map(str, first["loc"])
        if first["type"] == "extra_forbidden":
            known = Shares.model_fields if above else Policy.model_fields
            raise unknown(f"key in policy '{file}'{f', {above[0]},' if above else ''}", key, known) from None
        if first["type"] == "missing":
            raise UserError(f"Policy '{file}' has no '{key}'. This version of Darumeru reads 'version: 1'.") from None
        name = ".".join([*above, key])
        raise UserError(
            f"Policy '{file}': {name}: {first['input']!r} is not possible. {_allowed(name, first['msg'])}"
        ) from None


def _allowed(name: str, message: str) -> str:
    """Return what a value may be, in words of the policy where pydantic's say too little."""
    section = name.split(".")[0]
    return {
        "non_inferiority": "A margin is a difference of scores from 0 to 1, such as 0.01.",
        "maximum_share": "A maximum is a share above 0 and below 1: no number of answers shows that a share is 0.",
        "minimum_score": "A minimum is a score, such as 0.35.",
        "minimum_symbols_per_token": "A minimum is a number above 0, such as 2.0.",
    }.get(section, f"{message.rstrip('.')}.")
