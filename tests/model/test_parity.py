"""`benchmarks/parity.py`: plain forward passes agree with ours, and what differs is found and named."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from darumeru.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "parity.py"


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference(parity: ModuleType, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("parity") / "reference.json"
    asked = ["--tasks", "rcb,mmlu_ru,sum_extractive,multiq", "--limit", "1", "--num-fewshot", "1"]
    assert parity.main(["--make", str(file), "--model", str(tiny_base), *asked]) == 0
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def compared(
    parity: ModuleType,
    model: Path,
    folder: Path,
    content: dict[str, Any],
    *more: str,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str]:
    file = folder / "reference.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    code = parity.main(["--reference", str(file), "--model", str(model), *more])
    return code, capsys.readouterr().out


def test_plain_transformers_says_the_same(
    parity: ModuleType, tiny_base: Path, reference: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [item["kind"] for item in reference["items"]]
    assert (kinds.count("choose"), kinds.count("rank"), kinds.count("generate")) == (2, 1, 1)
    assert all(
        item["prompt"].startswith("Query: ") and "\n\nResponse: " in item["prompt"] for item in reference["items"]
    )
    data = ["--data", "mini", "--num-fewshot", "1", "--own-prompts"]
    assert compared(parity, tiny_base, tmp_path, reference, *data, capsys=capsys)[0] == 0


def test_what_differs_is_named(
    parity: ModuleType, tiny_base: Path, reference: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(json.dumps(reference))
    by_id = {item["id"]: item for item in other["items"]}
    rcb, ranked, written = (next(i for i in by_id if i.startswith(t)) for t in ("rcb/", "sum_extractive/", "multiq/"))
    by_id[rcb]["probabilities"] = by_id[rcb]["probabilities"][::-1]
    by_id[ranked]["ranking"] = by_id[ranked]["ranking"][1:] + by_id[ranked]["ranking"][:1]
    by_id[written]["tokens"][0] += 1
    mmlu = next(i for i in by_id if i.startswith("mmlu_ru/"))
    by_id[mmlu]["prompt"] = by_id[mmlu]["prompt"].replace("\n\nResponse:", "\nResponse:")
    del by_id[mmlu]["prompt_tokens"]
    code, out = compared(
        parity, tiny_base, tmp_path, other, "--data", "mini", "--num-fewshot", "1", "--own-prompts", capsys=capsys
    )
    assert code == 1
    for line in (f"{rcb}: place 1", f"{ranked}: place 1", f"{written}: answer, at 0", f"{mmlu}: prompt, at "):
        assert line in out
    # The file's own prompts are taken at their word, and as many items may change as did.
    allowed = ["--max-changed", "4", "--max-difference", "1", "--max-prompts", "0"]
    assert compared(parity, tiny_base, tmp_path, other, *allowed, capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"id": "a", "kind": "choose", "labels": ["1", "2"], "logprobs": [-1, -2]}, "needs 'prompt'"),
        ({"id": "a", "kind": "choose", "prompt": "x", "labels": ["1", "2"], "logprobs": [-1]}, "a number for each"),
        ({"id": "a", "kind": "rank", "prompt": "x", "options": ["a", "b"], "ranking": [1, 1]}, "each option once"),
        ({"id": "a", "kind": "generate", "prompt": "x", "tokens": [1]}, "'tokens' and 'max_tokens'"),
        ({"id": "a", "kind": "choice", "prompt": "x"}, "kind"),
    ],
)
def test_a_faulty_file_is_refused(parity: ModuleType, tmp_path: Path, item: dict[str, Any], message: str) -> None:
    file = tmp_path / "reference.json"
    file.write_text(json.dumps({"framework": "x", "items": [item]}), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        parity.read(file)
