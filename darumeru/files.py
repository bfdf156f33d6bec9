"""Files: atomic writes, JSON lines, fingerprints, and names that are safe to use in paths."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from darumeru.errors import UserError, one_line


def dumps(value: Any) -> str:
    """Return `value` as one line of JSON: sorted keys, non-ASCII letters kept, so that equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a binary file that becomes `path` when the block ends without an exception; else nothing is left of it.

    So `path` holds either its old content or all of the new, whatever happens. What a killed process left of an earlier
    attempt is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean(path)
    handle, name = _held(lambda: tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=_TEMPORARY))
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide a record from the rest of a team
            Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


@contextlib.contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a new folder that becomes the folder `output` when the block ends without an exception; else nothing is left of it.

    It lies beside `output`, or beside its target where it is a symbolic link. What a killed process left of an earlier attempt
    is deleted; an `output` that it had put aside, to put its own in its place, is put back.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    _clean(output)

    def new() -> tuple[int, str]:
        name = tempfile.mkdtemp(dir=output.parent, prefix=_prefix(output), suffix=_UNFINISHED)
        return os.open(name, os.O_RDONLY), name

    with contextlib.ExitStack() as held:
        handle, name = _held(new)
        held.callback(os.close, handle)
        stage = Path(name)
        held.callback(shutil.rmtree, stage, ignore_errors=True)
        yield stage
        stage.chmod(0o777 & ~_umask())  # mkdtemp's 0700 would hide it
        aside: list[Path] = []
        while True:
            with contextlib.suppress(FileNotFoundError):
                held.callback(os.close, _lock(os.open(output, os.O_RDONLY)))
                old = stage.with_name(f"{stage.name}.{len(aside)}{_REPLACED}")
                output.rename(old)
                aside.append(old)
            try:
                stage.rename(output)
                break
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another process has put its own there meanwhile
                for old in aside[-1:]:
                    with contextlib.suppress(OSError):
                        old.rename(output)
                raise
        for old in aside:
            shutil.rmtree(old, ignore_errors=True)


_TEMPORARY, _UNFINISHED, _REPLACED = ".tmp", ".unfinished", ".replaced"
_LEFT = re.compile(r"\..*(\.tmp|\.unfinished|\.replaced)|\.lock")


def check_output(folder: Path) -> None:
    """Raise an error if a file stands where a command is to write a folder.

    Raises:
        UserError: it does.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file; --output must be a folder.")


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what a process may have left that was killed before it had written a file."""
    return all(_LEFT.fullmatch(path.name) for path in folder.iterdir())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _prefix(path: Path) -> str:
    """Return how the names of files begin that are to become `path`; a file name has at most 255 bytes."""
    return f".{path.name[:50]}."


def sibling(path: Path, ending: str) -> Path:
    """Return the path beside another one, with something behind its name.

    Args:
        path: the other one.
        ending: ASCII. Where the name would have more than the 255 bytes that file systems allow, a fingerprint takes the
            place of the end of the other one's name.
    """
    name = path.name + ending
    if len(whole := os.fsencode(path.name)) + len(ending) > _LONGEST:
        ending = f"-{hashlib.sha256(whole).hexdigest()[:8]}{ending}"
        name = whole[: _LONGEST - len(ending)].decode(errors="ignore") + ending
    return path.with_name(name)


_LONGEST = 255


def _lock(handle: int, how: int = fcntl.LOCK_EX) -> int:
    with contextlib.suppress(OSError):  # a file system that knows no locks: nothing is deleted there either
        fcntl.flock(handle, how)
    return handle


def _held(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Return a new file or folder, open and locked, so that others see that its process lives."""
    while True:
        handle, name = make()
        _lock(handle)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process took it for abandoned before it was locked


def _clean(path: Path) -> None:
    """Delete what processes that were killed left of attempts to write `path`."""
    for name in glob.glob(glob.escape(_prefix(path)) + "*", root_dir=path.parent):  # noqa: PTH207 — no pattern in the folder's name
        left = path.parent / name
        if left.suffix in (_TEMPORARY, _UNFINISHED, _REPLACED):
            with contextlib.suppress(OSError):  # it lives, is another user's, or gone
                _delete_abandoned(left, path)


def _delete_abandoned(left: Path, path: Path) -> None:
    if left.is_symlink():  # no process writes through a link
        left.unlink()
        return
    handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if left.suffix == _REPLACED and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically (`replacing`)."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically; a row at a time, as there may be more than fits into memory twice."""
    with replacing(path) as file:
        for row in rows:
            file.write(f"{dumps(row)}\n".encode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist.") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # of Unicode, of JSON, a number of thousands of digits, thousands of brackets
        raise UserError(f"'{path}' is not valid JSON ({error}).") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) for each non-empty line of a JSON-lines file, `.gz` too.

    Raises:
        UserError: a line is not JSON or not UTF-8; the message names the line.
    """
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, json.loads(line)
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"'{path}', line {number}: not valid JSON ({error.msg}).") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"'{path}', after line {number}: cannot be read as UTF-8 text ({error}).") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UserError(f"'{path}', line {number}: not valid JSON ({error}).") from None


def read_yaml(path: Path, what: str = "") -> Any:
    """Read a YAML file.

    Args:
        path: of the file.
        what: it is, for the message.

    Raises:
        UserError: it is missing, or no YAML.
    """
    named = f"{what} '{path}'".strip()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{named} does not exist.") from None
    except OSError as error:
        raise UserError(f"{named} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not valid YAML ({one_line(error)}).") from None
    return parse_yaml(text, named)


def parse_yaml(text: str, named: str) -> Any:
    """Return what a YAML text says.

    Raises:
        UserError: it is no YAML; the message begins with `named`.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an impossible date, thousands of digits
        raise UserError(f"{named} is not valid YAML ({one_line(error)}).") from None


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of `value`'s canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def slug(name: str) -> str:
    """Return `name` as a single harmless path component: letters, digits, `.`, `_`, `-`; never empty, never hidden."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_")
    return safe[:80] or "model"
