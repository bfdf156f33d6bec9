"""Files appear whole or not at all, whoever writes them, and hold the rights that any new file would have."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.files import is_empty, read_json, replacing, sibling, staged, write_json, write_jsonl, write_text

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


KILLED = """
import os, signal, sys
from pathlib import Path
from darumeru.files import replacing, staged
path = Path(sys.argv[2])
with {"file": replacing, "folder": staged}[sys.argv[1]](path) as new:
    (new.write(b"half"), new.flush()) if sys.argv[1] == "file" else (new / "half").write_text("half")
    if sys.argv[3] == "between":
        os.kill = lambda *_: None
        Path.rename = lambda self, to: (os.rename(self, to), __import__("signal").raise_signal(9))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(what: str, path: Path, when: str = "within") -> list[str]:
    """Kill a process while it writes; what it left beside."""
    code = subprocess.run([sys.executable, "-c", KILLED, what, path, when], cwd=ROOT, check=False).returncode
    assert code == -signal.SIGKILL
    return sorted(p.name for p in path.parent.iterdir())


@pytest.mark.parametrize("name", ["scores.json", "ы [*] " + "ж" * 120])
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path, name: str) -> None:
    file, folder = tmp_path / "a" / name, tmp_path / "b" / name
    file.parent.mkdir()
    (left,) = killed("file", file)
    assert left.endswith(".tmp")
    write_text(file, "new")
    assert [p.name for p in file.parent.iterdir()] == [name]

    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    assert len(killed("folder", folder)) == 2
    assert (folder / "old").read_text() == "old"
    with staged(folder) as new:
        (new / "new").write_text("new")
    assert [p.relative_to(folder.parent).as_posix() for p in folder.parent.rglob("*")] == [name, f"{name}/new"]


def test_a_link_in_the_place_of_what_a_killed_process_left_goes_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    link = tmp_path / ".a.json.abc.tmp"
    link.symlink_to("precious")
    write_json(tmp_path / "a.json", 1)
    assert not link.is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_folder_that_was_put_aside_by_a_killed_process_is_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "old").write_text("old")
    assert folder.name not in killed("folder", folder, "between")
    with pytest.raises(KeyboardInterrupt), staged(folder):
        raise KeyboardInterrupt
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["site", "site/old"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "site", Path.rename
    folder.mkdir()
    (folder / "old").write_text("old")

    def fails(self: Path, target: Path) -> Path:
        if target == folder and self.suffix == ".unfinished":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input"), staged(folder):
        pass
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["site", "site/old"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first, staged(tmp_path / "b") as stage:
        first.write(b"first")
        (stage / "one").touch()
        write_text(tmp_path / "a", "second")
        with staged(tmp_path / "b"):
            pass
        assert (stage / "one").exists()
        (tmp_path / "b").rmdir()
    assert (tmp_path / "a").read_bytes() == b"first"
    assert (tmp_path / "b" / "one").exists()


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged(tmp_path / "link") as new:
        (new / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").exists()


def test_a_folder_is_empty_with_what_a_killed_process_left(tmp_path: Path) -> None:
    assert is_empty(tmp_path)
    killed("file", tmp_path / "pretrain.json")
    (tmp_path / ".lock").touch()
    assert is_empty(tmp_path)
    (tmp_path / ".profile").touch()
    assert not is_empty(tmp_path)


@pytest.mark.parametrize("letter", ["a", "ж", "中", "🙂"])
def test_what_lies_beside_a_folder_has_a_name_that_can_be_written(tmp_path: Path, letter: str) -> None:
    assert sibling(tmp_path / "model", ".training") == tmp_path / "model.training"
    longest = [tmp_path / (first + letter * (254 // len(letter.encode()))) for first in "xy"]
    found = {sibling(path, ending) for path in longest for ending in (".training", ".runs")}
    assert len(found) == 4
    for path in found:
        path.mkdir()
        assert len(path.name.encode()) > 240
    assert {path.suffix for path in found} == {".training", ".runs"}


def test_one_module_makes_temporary_files() -> None:
    makes = re.compile(r"mkstemp|NamedTemporaryFile|os\.replace\(")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("darumeru", "lep", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if makes.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["darumeru/files.py"]
