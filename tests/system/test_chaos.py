"""Part of a minute of the campaign of faults; `make chaos` runs longer ones over all commands."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_some_faults_break_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = subprocess.run(
        [
            sys.executable, "-m", "tests.chaos", "--seed", "19", "--minutes", "0.3", "--only", "run", "pretrain",
            "--folder", tmp_path, "--output", report,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["trials"] > 0
    assert found["broken"] == 0
