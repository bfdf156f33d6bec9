"""A kind of raw data is one file: `darumeru data import` finds it by its name, in its help and in its errors."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from darumeru.data import importers
from darumeru.data.importers import import_data, kinds
from darumeru.errors import UserError
from support.commands import call

KINDS = ["copy", "flores", "mmlu", "multiq", "parus", "rucola", "rwsd", "use"]
NEW = '''"""Riddles: a table of question and answer."""

from darumeru.data.items import Item, splits_of
from darumeru.data.raw import files_of, records


def read(source, options):
    """Return `riddles`."""
    items = [
        Item("{question}", {"question": raw.text("question")}, raw.text("answer"), raw.text("answer"))
        for file in files_of(source, (".csv",))
        for raw in records(file)
    ]
    return splits_of("riddles", items[options.fewshot :], items[: options.fewshot])
'''


@pytest.fixture
def riddles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A further kind: one file in a folder where importers are looked for."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "riddles.py").write_text(NEW, encoding="utf-8")
    monkeypatch.setattr(importers, "__path__", [*importers.__path__, str(tmp_path / "kinds")])
    monkeypatch.delitem(sys.modules, "darumeru.data.importers.riddles", raising=False)
    source = tmp_path / "riddles.csv"
    source.write_text("question,answer\nЧто это?,Стол\nА это?,Стул\nКто там?,Почтальон\n", encoding="utf-8")
    return source


def test_the_kinds_are_those_of_the_folder() -> None:
    assert kinds() == KINDS


def test_help_and_error_name_every_kind(tmp_path: Path) -> None:
    help_text = call("data", "import", "--help")
    assert set(KINDS) <= set(re.findall(r"\w+", help_text))
    error = call("data", "import", "riddles", tmp_path, "--output", tmp_path / "out", code=2)
    assert set(KINDS) <= set(re.findall(r"\w+", error))


def test_a_new_kind_is_one_new_file(riddles: Path, tmp_path: Path) -> None:
    assert kinds() == sorted([*KINDS, "riddles"])
    with pytest.raises(UserError, match=r"Did you mean 'riddles'\? Available: .*riddles"):
        import_data("riddle", riddles, tmp_path / "out")
    assert "Wrote" in call("data", "import", "riddles", riddles, "--output", tmp_path / "out", "--fewshot", 1)
    rows = [json.loads(line) for line in (tmp_path / "out" / "riddles" / "test.jsonl").read_text().splitlines()]
    assert [row["inputs"]["question"] for row in rows] == ["А это?", "Кто там?"]
    assert [row["outputs"] for row in rows] == ["Стул", "Почтальон"]
    example = json.loads((tmp_path / "out" / "riddles" / "prompt.jsonl").read_text())
    assert example["messages"][-1] == {"role": "assistant", "content": "Ответ: Стол"}


def test_a_fault_of_a_new_kind_names_file_line_and_field(riddles: Path, tmp_path: Path) -> None:
    riddles.write_text("question,answer\nЧто это?,Стол\nА это?,\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"riddles\.csv', line 3, field 'answer': must be a text, this is ''"):
        import_data("riddles", riddles, tmp_path / "out")
