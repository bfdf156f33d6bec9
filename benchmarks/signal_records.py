"""The runs of leaderboards/smollm2-pair-ru as records: they were not kept, but their board has every sample.

    python benchmarks/signal_records.py FOLDER                       # records of the board's runs, in FOLDER
    darumeru signal FOLDER --budget 20% --output signal      # what they tell about `darumeru-train`

A record made so has the documents' scores, token counts and gold answers of the board; times, prompts' templates and answers'
tokens are lost. Needs the extra `leaderboard`.
"""

from __future__ import annotations

import argparse
import json
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from darumeru.files import file_sha256, fingerprint, write_json, write_jsonl
from darumeru.record.sample import Sample, table_of
from darumeru.scoring.aggregate import Aggregate, bits_per_byte, f1_macro, matthews, mean
from darumeru.scoring.summary import score_task

BOARD = Path(__file__).parents[1] / "leaderboards" / "smollm2-pair-ru" / "board.tar.xz"
STEP_0 = "6a10af83c7"
"""The run of the initialised model, with which the training begins."""
SAME = "0da9e7dca1"
"""The trained model once more: its weights are those of step 200."""
AGGREGATES: dict[str, Aggregate] = {"f1_macro": f1_macro, "mcc": matthews, "bits_per_byte": bits_per_byte}


def script(file: Path) -> Any:
    """Return the value in a script file of a page."""
    text = file.read_text(encoding="utf-8")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


def sample_of(item: dict[str, Any]) -> Sample:
    """Return a document from what the board's page shows of it."""
    return Sample(
        id=item["i"],
        doc={},
        gold=item["g"],
        pred=item["r"],
        score=item["s"],
        cluster=item["c"],
        requests=[
            {
                "prompt": q["p"], "prompt_tokens": q["n"], "num_fewshot": q["f"], "truncated": q["t"],
                "reference_tokens": round(float(q["l"][0]) / item["s"]["logprob"]) if "logprob" in item["s"] else None,
                "answer": {"text": q["a"] or "", "finish": q["e"] or "", "tokens": [0] * q["k"],
                           "logprobs": [float(v) for v in q["l"]]},
            }
            for q in item["q"]
        ],
    )  # fmt: skip


def write_record(page: Path, row: dict[str, Any], suite: dict[str, Any], output: Path) -> None:
    """Write the record of one run of a board."""
    results: dict[str, Any] = {}
    for task in script(page / "data" / "index.js")["tasks"]:
        name, primary = task["task"], tuple(task["metrics"])
        rows = [i for k in range(len(task["sizes"])) for i in script(page / "data" / f"{task['file']}-{k}.js")]
        samples = sorted(map(sample_of, rows), key=lambda s: s.id)
        metrics = {m: AGGREGATES.get(m, mean) for m in primary}
        results[name], _ = score_task(table_of(samples), metrics, primary, seed=0)
        requests = [r for s in samples for r in s.requests]
        results[name] |= {
            "higher_is_better": primary != ("bits_per_byte",),
            "requests": len(requests),
            "prompt_tokens": sum(r.prompt_tokens for r in requests),
            "generated_tokens": sum(len(r.answer.tokens) for r in requests),
        }
        write_jsonl(output / "samples" / f"{name}.jsonl", (s.to_json() for s in samples))
    step = re.search(r"\(step (\d+)\)", row["name"])
    training = (
        {"training": {"run": "base-ru", "step": int(step[1]) if step else 0}} if step or row["id"] == STEP_0 else {}
    )
    header = {
        "format": 1, "model": {"name": row["name"]}, "engine": {"name": "vllm"}, "mode": row["mode"],
        "num_fewshot": row["shots"], "limit": 10, "suite": suite,
        "tasks": {t: {"version": "1.0", "documents": r["documents"], "of": r["documents"],
                      "data": {"test": {"source": "mini", "sha256": fingerprint(t)}}} for t, r in results.items()},
    } | training | {"id": row["id"]}  # fmt: skip

    def score(name: str) -> dict[str, Any]:
        return dict(zip(("value", "low", "high"), row["s"][name][:3], strict=True))

    groups = {g["name"]: score(g["name"]) | {"title": g["title"]} for g in suite["groups"]}
    scores = {"suite": score("suite") | {"title": suite["summary"]}, "groups": groups, "tasks": results, "failed": {}}
    write_json(output / "header.json", header)
    write_json(output / "scores.json", scores)
    names = ["header.json", "scores.json", *(f"samples/{t}.jsonl" for t in results)]
    sums = {n: file_sha256(output / n) for n in names}
    write_json(output / "manifest.json", {"format": 1, "complete": True, "files": sums})


def main() -> None:
    """Write the records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder, tarfile.open(BOARD) as pages:
        pages.extractall(folder, filter="data")
        board = script(Path(folder) / "data" / "board.js")
        rows = [r for r in board["rows"] if r["id"] != SAME]
        for row in rows:
            write_record(Path(folder, row["page"]).parent, row, board["suite"], output / row["id"])
    print(f"{len(rows)} records in {output}")


if __name__ == "__main__":
    main()
