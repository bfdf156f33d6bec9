"""A release gate: a policy's rules, tested on a run and its baseline → GO, NO-GO or INCONCLUSIVE.

>>> gate(read_policy(Path("release.yaml")), load_run("runs/new"), load_run("runs/old")).verdict
"""

from __future__ import annotations

from darumeru.gate.policy import TEMPLATE, Policy, read_policy
from darumeru.gate.rules import Decision, Finding, Verdict, gate

__all__ = ["TEMPLATE", "Decision", "Finding", "Policy", "Verdict", "gate", "read_policy"]
