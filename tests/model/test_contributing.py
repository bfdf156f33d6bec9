"""The task of CONTRIBUTING.md is a task as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.commands import call

ROOT = Path(__file__).parents[2]


def test_the_task_of_contributing_is_planned(tiny_chat: Path, tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.M | re.S)
    assert len(blocks) == 1
    tasks, rows = tmp_path / "tasks", tmp_path / "bundle" / "name"
    tasks.mkdir()
    rows.mkdir(parents=True)
    (tasks / "sentiment.yaml").write_text(blocks[0], encoding="utf-8")
    for split, texts in (("train", ["Скучно."]), ("test", ["Прекрасный фильм.", "Не ходите."])):
        lines = [json.dumps({"text": t, "label": i % 2}, ensure_ascii=False) for i, t in enumerate(texts, 1)]
        (rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--model", tiny_chat, "--data", tmp_path / "bundle", "--include-path", tasks, "--tasks", "sentiment"]
    call("run", *options, "--engine", "hf", "--output", tmp_path / "runs")
    samples = [json.loads(line) for line in next((tmp_path / "runs").rglob("sentiment.jsonl")).read_text().splitlines()]
    prompts = {sample["requests"][0]["prompt"] for sample in samples}
    assert len(prompts) == 2
    assert any("Отзыв: Прекрасный фильм.\nОн хвалебный?" in prompt for prompt in prompts)
    assert {sample["gold"] for sample in samples} == {"да", "нет"}
