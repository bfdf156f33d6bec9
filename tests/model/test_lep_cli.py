"""The command line: one call of one function each, one sentence for each mistake."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import UserError
from lep import cli
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lep", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    code = stopped.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join((RUSSIAN + ENGLISH) * 5))
    return path


def test_the_whole_chain(
    make_model: Callable[..., Path],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    vocabulary, adapted, out = tmp_path / "vocabulary", tmp_path / "adapted", tmp_path / "out"
    extend = ["vocab", "extend", "--model", base, "--corpus", corpus, corpus, "--output", vocabulary, "--add", "50"]
    assert run(monkeypatch, *extend) == 0
    assert run(monkeypatch, "init", "--model", base, "--tokenizer", vocabulary, "--output", adapted) == 0
    assert run(
        monkeypatch, "propagate", "--base", base, "--adapted", adapted, "--instruct", base, "--output", out, "--link"
    ) == 0  # fmt: skip
    assert run(monkeypatch, "vocab", "check", base, out, "--text", corpus) == 0
    said = capsys.readouterr().out
    assert "vocab extend →" in said
    assert "10 invariants hold" in said
    assert "condition" in said
    assert run(monkeypatch, "inspect", out) == 0
    said = capsys.readouterr().out
    for stage in ("this folder: propagate", "adapted: init", "tokenizer: vocab extend"):
        assert stage in said
    assert run(monkeypatch, "inspect", out, "--json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["stage"] for stage in stages] == ["propagate", "init", "vocab extend"]

    picture, record = tmp_path / "p.svg", tmp_path / "r.json"
    report = ["vocab", "report", base, out, "--text", f"news<u>={corpus}", "--json", record, "--picture", picture]
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, *report) == 0
    told = capsys.readouterr().out
    assert "symbols" in told
    lines = [line.split()[:2] for line in told.splitlines()]
    assert [line for line in lines if line[:1] == ["news<u>"]] == [["news<u>", "base"], ["news<u>", "out"]]
    rows = json.loads(record.read_text())["rows"]
    assert [row["tokenizer"] for row in rows] == ["base", "out"]
    assert rows[1]["symbols_per_token"] > rows[0]["symbols_per_token"]
    assert "news<u>" not in picture.read_text()
    import xml.etree.ElementTree as ElementTree

    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")  # noqa: S314 - our own text


def test_mistakes_are_one_sentence(
    make_model: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "inspect", tmp_path / "nowhere") == 2
    said = capsys.readouterr().err
    assert "There is no folder" in said
    assert "Traceback" not in said
    assert run(monkeypatch, "init", "--model", "x") == 2  # typer's own message for a missing option
    monkeypatch.setattr(sys, "argv", ["lep", "inspect", str(tmp_path / "nowhere"), "--debug"])
    with pytest.raises(UserError):
        cli.main()
    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    other = save_byte_level(tmp_path / "other", RUSSIAN, 380)
    (other / "chat_template.jinja").write_text("another template")
    assert run(monkeypatch, "vocab", "check", base, other) == 1
    assert "breaks an invariant" in capsys.readouterr().err


def test_a_failure_that_nobody_foresaw_is_one_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lep.measure import inspection

    def fails(_: str) -> None:
        raise RuntimeError("something odd")

    monkeypatch.setattr(inspection, "inspect_folder", fails)
    assert run(monkeypatch, "inspect", tmp_path) == 1
    assert "something odd" in capsys.readouterr().err


def test_options_take_several_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lep.cli import vocab

    seen: list[Any] = []

    def made(*arguments: Any, **settings: Any) -> Any:
        seen.append((arguments, settings))
        raise UserError("that is enough")

    monkeypatch.setattr(vocab, "extend_vocabulary", made)
    monkeypatch.setattr(vocab, "report_vocabularies", made)
    output = tmp_path / "out"
    arguments = ["vocab", "extend", "--corpus", "a", "b", "--model", "m", "--output", output, "--add", "3"]
    assert run(monkeypatch, *arguments) == 2
    assert seen[0][1]["corpus"] == ("a", "b")
    assert seen[0][1]["add"] == 3
    assert run(monkeypatch, "vocab", "report", "m1", "m2", "--text", "a", "b") == 2
    assert seen[1][0] == (["m1", "m2"],)
    assert seen[1][1]["texts"] == ("a", "b")


def test_help_needs_no_heavy_imports() -> None:
    code = (
        "import sys; sys.argv = ['lep', '--help']; import lep.cli\n"
        "try: lep.cli.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'scipy', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "propagate" in done.stdout
