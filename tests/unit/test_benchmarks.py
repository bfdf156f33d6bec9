"""Every benchmark starts: what it imports is still there. Their figures are their own affair."""

import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("file", sorted(BENCHMARKS.glob("*.py")), ids=lambda file: file.stem)
def test_it_says_what_it_does(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(file), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(file), run_name="__main__")
    assert not end.value.code
    assert "usage:" in capsys.readouterr().out


def test_agreement_names_the_samples_whose_answers_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, other = BENCHMARKS.parent / "leaderboards" / "runs" / "smollm2-135m-instruct-mini", tmp_path / "other"
    shutil.copytree(record, other)
    file = other / "samples" / "parus.jsonl"
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    changed = json.loads(first)
    changed["pred"] = {"1": "2", "2": "1"}[changed["pred"]]
    changed["requests"][0]["answer"]["logprobs"][0] -= 0.5
    file.write_text("\n".join([json.dumps(changed, ensure_ascii=False), *rest]) + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["agreement.py", "--runs", str(record), str(other)])
    runpy.run_path(str(BENCHMARKS / "agreement.py"), run_name="__main__")
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    samples = {name.stem: len(name.read_text("utf-8").splitlines()) for name in (record / "samples").glob("*.jsonl")}
    for task, number in samples.items():
        assert rows[task][:2] == [str(number), str(number - (task == "parus"))]
    assert float(rows["parus"][2]) == pytest.approx(0.5)
    assert [line for line in printed.splitlines() if line.startswith("parus/")] == [
        f"parus/{changed['id']}: {[{'1': '2', '2': '1'}[changed['pred']], changed['extra'].get('pred_swapped')]} | "
        f"{[changed['pred'], changed['extra'].get('pred_swapped')]}"
    ]


def test_steps_of_an_adaptation_come_from_the_speeds_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("adaptation_benchmark", BENCHMARKS / "adaptation.py")
    assert spec is not None and spec.loader is not None
    adaptation: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adaptation)
    steps: dict[str, int] = {}

    def trained(way: str, seed: int, count: int, options: Any) -> dict[str, Any]:
        steps[way] = count
        end = dict.fromkeys(adaptation.HELD_OUT, 1.0)
        return {"way": way, "seed": seed, "curve": [end], "tokens_per_second": 1.0, "characters": 1}

    monkeypatch.setattr(adaptation, "prepare", lambda options: options.output.mkdir(exist_ok=True))
    monkeypatch.setattr(adaptation, "speed_of", lambda way, options: {"rows": 100.0, "control": 50.0}[way])
    monkeypatch.setattr(adaptation, "trained", trained)

    def run(*more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["adaptation.py", "--model", "m", "--output", str(tmp_path / "out"), *more])
        adaptation.main()

    run("--ways", "rows", "control", "--time")
    assert steps == {}
    file = tmp_path / "out" / "speeds.json"
    assert json.loads(file.read_text("utf-8")) == {"rows": 100.0, "control": 50.0}
    run("--ways", "rows", "control", "--minutes", "1024", "--speeds", str(file))
    assert steps == {"rows": 6000, "control": 3000}
    with pytest.raises(SystemExit, match="no speed of matrices"):
        run("--ways", "rows", "matrices", "--speeds", str(file))
