"""What is installed on this machine, what works, and what to do: `darumeru doctor`.

Nothing heavy is imported by this process: what may be broken (PyTorch, vLLM) is tried in processes of its own, and everything
that cannot be found out is said instead of raised.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from darumeru.doctor.findings import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order of the table."""

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether nothing that is needed is broken."""
        return all(finding.state != "broken" for finding in self.findings)

    @property
    def advice(self) -> list[str]:
        """What to do next, most urgent first; each sentence once."""
        urgent = sorted(
            (f for f in self.findings if f.advice), key=lambda f: ("broken", "note", "missing", "ok").index(f.state)
        )
        return list(dict.fromkeys(finding.advice for finding in urgent))

    def to_json(self) -> dict[str, Any]:
        """Return the content of `--json`."""
        return {"works": self.works, "findings": [asdict(f) for f in self.findings], "advice": self.advice}


def diagnose() -> Diagnosis:
    """Look at packages, devices, memory, disks, engines and the hub; takes as long as PyTorch and vLLM need to be imported."""
    from darumeru.doctor import devices, engines, machine, packages

    parts = (packages.findings, devices.findings, machine.findings, engines.findings)
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: part(), parts))
    return Diagnosis(tuple(finding for part in found for finding in part))
