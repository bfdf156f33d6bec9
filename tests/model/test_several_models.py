"""`darumeru run` with several models: each as by itself, one table at the end."""

import json
from pathlib import Path

import pytest

from darumeru.record.run import find_runs
from support.commands import call

ASKED = ("--data", "mini", "--engine", "hf", "--device", "cpu", "--tasks", "parus", "--limit", 3)


def test_each_has_settings_of_its_own_and_one_that_fails_does_not_stop_the_others(
    tiny_chat: Path, tiny_base: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models.yaml"
    models.write_text(f"- {tmp_path / 'nowhere'}\n- model: {tiny_base}\n  num-fewshot: 1\n  dtype: float32\n")
    said = call("run", "--model", tiny_chat, "--models", models, *ASKED, "--output", tmp_path / "runs", code=1)
    runs = {r.header.model.name: r for r in find_runs(tmp_path / "runs")}
    assert set(runs) == {tiny_chat.name, tiny_base.name}
    assert all(r.complete for r in runs.values())
    assert (runs[tiny_base.name].header.num_fewshot, runs[tiny_base.name].header.engine.dtype) == (1, "float32")
    assert (runs[tiny_chat.name].header.num_fewshot, runs[tiny_chat.name].header.engine.dtype) == (0, "auto")
    table = said[said.rindex("95 % interval") :]  # its head
    for name in (*runs, "nowhere"):
        assert name in table
    assert "1 of 3 runs failed" in said
    assert "does not exist" in said
    again = call("run", "--model", tiny_chat, "--model", tiny_base, *ASKED, "--json", "--output", tmp_path / "runs")
    told = json.loads(again[again.index("[\n  {") : again.rindex("\n]") + 2])
    assert [Path(t["run"]).name.startswith(n) for t, n in zip(told, (tiny_chat.name, tiny_base.name), strict=True)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        ("- [1", "is not valid YAML"),
        ("model: x", "is no list of models"),
        ("- num_fewshot: 1", "is no list of models"),
        ("- model: x\n  fewshot: 1", "Unknown setting 'fewshot'. Did you mean 'num_fewshot'?"),
        ("- model: x\n  limit: 0", "--limit: 0 is not possible"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_before_anything_is_computed(
    content: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    if content is not None:
        file.write_text(content)
    assert said in " ".join(call("run", "--models", file, *ASKED, "--output", tmp_path / "runs", code=2).split())
    assert not (tmp_path / "runs").exists()


def test_a_model_is_needed(tmp_path: Path) -> None:
    assert "--model is missing" in call("run", *ASKED, "--output", tmp_path, code=2)
    assert "--workers: '0' is not possible" in call("run", "--model", "m", "--workers", 0, code=2)
    assert "--until is of one run" in call("run", "--model", "a", "--model", "b", "--until", "micro_avg ± 0.1", code=2)
