"""Rules on runs: what each measures is tested against its bound; the verdict of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from darumeru.errors import UserError, unknown
from darumeru.gate.estimates import Measured, Side, measure
from darumeru.gate.policy import SUITE, Policy, Rule
from darumeru.leaderboard.about import distinct_names
from darumeru.leaderboard.entry import Entry, Problem
from darumeru.leaderboard.load import read_run, suite_of
from darumeru.leaderboard.means import members_of
from darumeru.record.run import Run
from darumeru.scoring.compare import holm
from darumeru.scoring.margin import Needed, documents_needed, one_sided


class Verdict(StrEnum):
    """What a rule, or all of them, say."""

    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Finding:
    """A rule and what the runs say of it."""

    rule: Rule
    measured: Measured
    verdict: Verdict = Verdict.INCONCLUSIVE
    p: float | None = None
    """Of the test that the verdict rests on, Holm-corrected over the rules; where undecided the smaller of the two."""
    needed: Needed | None = None
    """Where undecided: how many documents would decide."""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        measured = {k: v for k, v in asdict(self.measured).items() if k != "estimate"}
        needed = asdict(self.needed) if self.needed else None
        return asdict(self.rule) | {"verdict": self.verdict} | measured | {"p_holm": self.p, "needed": needed}


@dataclass(frozen=True)
class Decision:
    """Result of `darumeru gate`."""

    verdict: Verdict
    findings: list[Finding]
    run: Entry
    baseline: Entry | None
    policy: Policy

    def to_json(self) -> dict[str, Any]:
        """Return the decision as a JSON object."""
        named = {"run": self.run, "baseline": self.baseline}
        return {
            "verdict": self.verdict,
            **{key: {"name": e.name, "id": e.id} if e else None for key, e in named.items()},
            "policy": self.policy.model_dump(),
            "rules": [f.to_json() for f in self.findings],
        }


def gate(policy: Policy, run: Run, baseline: Run | None = None) -> Decision:
    """Test each rule of a policy on a run.

    A rule is GO if its bound is met and NO-GO if it is missed, at the policy's level: one-sided tests, each of the two families
    corrected with Holm's method over all rules, so that neither a false GO nor a false NO-GO has more than that chance. The
    verdict is GO if all rules are, NO-GO if one is.

    Args:
        policy: the rules.
        run: finished.
        baseline: finished, on the same documents; for rules of non-inferiority.

    Raises:
        UserError: a run is not finished, the policy names what the suite has not, a baseline is missing, not needed or was
            asked differently.
    """
    if policy.non_inferiority and baseline is None:
        raise UserError("The policy's non_inferiority holds a run against another: give --baseline RUN.")
    if baseline is not None and not policy.non_inferiority:
        raise UserError("No rule of the policy needs --baseline: leave it out, or give non_inferiority a margin.")
    new, old = _read(run), _read(baseline) if baseline is not None else None
    if old is not None:
        if old.entry.id == new.entry.id:
            raise UserError(f"--baseline '{run.path}' is the run itself. Give the record of the model before.")
        entries = distinct_names([new.entry, old.entry])
        new, old = (replace(side, entry=entry) for side, entry in zip((new, old), entries, strict=True))
    scopes = _scopes(new.entry)
    measured = []
    for rule in policy.rules():
        if rule.scope not in scopes:
            raise unknown(f"task or group of the policy ({rule.kind})", rule.scope, scopes)
        measured.append((rule, measure(rule, scopes[rule.scope], new, old)))
    findings = _tested(policy, measured)
    verdicts = {f.verdict for f in findings}
    verdict = next(v for v in (Verdict.NO_GO, Verdict.INCONCLUSIVE, Verdict.GO) if v in verdicts)
    return Decision(verdict, findings, new.entry, old.entry if old else None, policy)


def _read(run: Run) -> Side:
    result = read_run(run.path)
    if isinstance(result, Problem):
        raise UserError(f"Run '{run.path}': {result.reason}")
    return Side(*result)


def _scopes(entry: Entry) -> dict[str, list[str]]:
    """Return what a rule may name → its tasks."""
    columns = members_of(suite_of([entry]))
    columns |= {task: [task] for task in entry.tasks if task not in columns}
    return {(SUITE if name == "suite" else name): tasks for name, tasks in columns.items() if tasks}


def _tested(policy: Policy, measured: Sequence[tuple[Rule, Measured]]) -> list[Finding]:
    """Return the verdicts, Holm-corrected; a rule that cannot be tested counts as one with p = 1."""
    pairs = []
    for _, m in measured:
        test = one_sided(m.estimate, m.limit) if m.estimate else None
        pairs.append(
            (1.0, 1.0) if test is None else (test.below, test.above) if m.at_most else (test.above, test.below)
        )
    met, missed = (holm([pair[side] for pair in pairs]) for side in (0, 1))
    # The smallest p-value is held against this level, the others against milder ones.
    strictest = policy.alpha / len(pairs)
    findings = []
    for (rule, m), p_met, p_missed in zip(measured, met, missed, strict=True):
        p = min(p_met, p_missed)
        if m.estimate is None:
            findings.append(Finding(rule, m))
        elif p < policy.alpha:
            findings.append(Finding(rule, m, Verdict.GO if p_met < p_missed else Verdict.NO_GO, p))
        else:
            needed = documents_needed(m.estimate, m.limit, strictest, policy.power)
            findings.append(Finding(rule, m, Verdict.INCONCLUSIVE, p, needed))
    return findings
