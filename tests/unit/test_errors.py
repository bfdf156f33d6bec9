"""What a command says of a disk that does not do what it should, and when it is interrupted."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from darumeru.cli.terminal import errors
from darumeru.errors import UserError, of_system

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("number", "name", "code", "said"),
    [
        (errno.ENOSPC, None, 1, "No space is left on the disk. Free some and start the same command again"),
        (errno.ENOSPC, "/a/b", 1, "No space is left on the disk for '/a/b'."),
        (errno.EIO, "/a/b", 1, "The disk of '/a/b' could not be read or written"),
        (errno.EROFS, "/a/b", 2, "No right to write or read '/a/b' (Read-only file system). Name a folder"),
        (errno.ENAMETOOLONG, "/a/b", 2, "The path '/a/b' cannot be used (File name too long)"),
    ],
)
def test_a_disk_that_refuses_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    name: str | None,
    code: int,
    said: str,
) -> None:
    monkeypatch.delenv("DARUMERU_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as end, errors():
        raise OSError(number, os.strerror(number), name)
    assert end.value.exit_code == code
    told = capsys.readouterr().err
    assert told.startswith(f"Error: {said}")
    assert "should not happen" not in told


def test_a_copy_that_is_not_installed_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    monkeypatch.delenv("DARUMERU_DEBUG", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(typer.Exit) as end, errors():
        metadata.version("darumeru")
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == (
        "Error: this copy of Darumeru is not installed. In its folder run: pip install -e .\n"
    )


def test_other_errors_of_the_system_are_not_explained_away() -> None:
    assert of_system(FileNotFoundError(errno.ENOENT, "no such file", "a")) is None
    assert isinstance(of_system(PermissionError(errno.EACCES, "denied", "a")), UserError)


def test_a_second_interrupt_ends_a_command_that_is_ending(tmp_path: Path) -> None:
    """Without a traceback, which would hide the sentence of the first."""
    script = tmp_path / "command.py"
    script.write_text(
        """
import time
from darumeru.cli.terminal import errors
try:
    with errors():
        print("works", flush=True)
        time.sleep(60)
except BaseException:
    time.sleep(60)  # Python takes its time to end
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("Interrupted.")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    assert "Traceback" not in process.stderr.read()
