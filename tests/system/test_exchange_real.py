"""Stock lm-eval with a real model, on a task of ours and one of its own kind, imported beside a run of ours."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from darumeru.data.bundle import MINI
from darumeru.evaluation import evaluate
from darumeru.leaderboard import build
from darumeru.task.suite import TASKS


def test_stock_lm_eval_beside_ours(smollm2: Path, tmp_path: Path) -> None:
    rows = (MINI / "rwsd" / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:6]
    bundle = tmp_path / "bundle" / "rwsd"
    bundle.mkdir(parents=True)
    (bundle / "test.jsonl").write_text("".join(rows), encoding="utf-8")
    (bundle / "prompt.jsonl").write_bytes((MINI / "rwsd" / "prompt.jsonl").read_bytes())
    sums = [{"q": f"{a} + {b} =", "choices": [str(a + b), str(a + b + 7)], "answer": 0} for a in (1, 2) for b in (1, 2)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums), encoding="utf-8")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for file in [*TASKS.glob("rwsd.*"), *TASKS.glob("*.py")]:
        (tasks / file.name).write_bytes(file.read_bytes())
    own = {
        "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "sums.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "choices",
        "doc_to_target": "answer", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    (tasks / "sums.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={smollm2},dtype=float32",
        "--tasks", "rwsd,sums", "--include_path", tasks, "--metadata", json.dumps({"data": str(tmp_path / "bundle")}),
        "--output_path", tmp_path / "stock", "--log_samples", "--device", "cpu", "--batch_size", "1",
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

    run = evaluate(
        smollm2, output=tmp_path / "runs", data=str(tmp_path / "bundle"), tasks=("rwsd",), engine="hf", mode="foundation",
        num_fewshot=0, dtype="float32",
    )  # fmt: skip
    board = build(
        [run.path, tmp_path / "stock"], tmp_path / "site", baseline=run.header.id[:10] if run.header.id else None
    ).board
    assert board.problems == []
    ours, theirs = (
        next(r for r in board.rows if not r.entry.published and r.entry.imported is i) for i in (False, True)
    )
    assert theirs.entry.tasks["rwsd"].rules == ours.entry.tasks["rwsd"].rules, (
        "documents, task and scoring are the same"
    )
    assert theirs.deltas["rwsd"].significant is not None, "so the difference was tested"
    stated = json.loads(next((tmp_path / "stock").rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    assert theirs.entry.scores["rwsd"].value == stated["rwsd"]["score,none"]
    value, low, high = theirs.entry.scores["sums"]
    assert value == stated["sums"]["acc,none"]
    assert low is not None and high is not None and low <= value <= high
