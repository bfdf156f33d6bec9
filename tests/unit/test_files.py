"""Files appear whole or not at all, whoever writes them, and hold the rights that any new file would have."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.files import read_json, replacing, write_json, write_jsonl, write_text

ROOT = Path(__file__).parents[2]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    write_text(file, "old\n")
    with pytest.raises(KeyboardInterrupt), replacing(file) as handle:
        handle.write(b"half")
        raise KeyboardInterrupt
    assert file.read_bytes() == b"old\n"
    with pytest.raises(TypeError):
        write_jsonl(file, [{"a": 1}, {"a": {1, 2}}])
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    assert file.read_bytes() == b"old\n"


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {"ё": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640
    assert (tmp_path / "a.json").read_bytes() == '{\n  "ё": 1\n}\n'.encode()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json' does not exist"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"a\.json' is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_one_module_makes_temporary_files() -> None:
    makes = re.compile(r"mkstemp|NamedTemporaryFile|os\.replace\(")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("darumeru", "lep", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if makes.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["darumeru/files.py"]
