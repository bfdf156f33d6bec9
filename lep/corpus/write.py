"""Corpora as they are written: a file that appears whole or not at all, then its report, whose presence means done."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from darumeru.data.texts import text_kind
from darumeru.errors import DarumeruError, UserError
from darumeru.extras import need
from darumeru.files import dumps, replacing, sibling, write_json
from lep.model.manifest import versions

_BATCH = 1 << 22
"""Characters gathered before a row group of Parquet is written."""


class CorpusWriter:
    """Takes documents one by one; counts what it took."""

    def __init__(self, put: Callable[[str], None], output: Path) -> None:
        self._put = put
        self._output = output
        self.documents = 0
        self.characters = 0

    def write(self, text: str) -> None:
        """Add a document.

        Raises:
            UserError: it cannot be written in UTF-8, or has line breaks and the file is a plain text file.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"A document holds half a character (U+{ord(text[error.start]):04X}), which UTF-8 cannot hold, after "
                f"{text[max(0, error.start - 30) : error.start]!r}. Run `lep corpus clean` first."
            ) from None
        self._put(text)
        self.documents += 1
        self.characters += len(text)


@contextmanager
def new_corpus(output: Path, *, inputs: Sequence[str | Path] = (), force: bool = False) -> Iterator[CorpusWriter]:
    """Give a writer whose file becomes `output` when the block ends without an exception; else nothing is left.

    Rows are `{"text": ...}` in JSON lines and Parquet. A plain text file holds one document a line, so documents with
    line breaks are refused there. The same documents give the same bytes.

    Args:
        output: a file ending in .jsonl or .txt (also with .gz or .zst), or .parquet.
        inputs: the files that are read; none of them may be the output.
        force: replace an output that exists. Its report goes first.

    Raises:
        UserError: an unknown ending, an output that exists or is an input, a folder that cannot be written to.
        DarumeruError: the disk is full.
    """
    output = output.absolute()
    kind = text_kind(output)
    if kind not in ("jsonl", "txt", "parquet") or (kind == "parquet" and output.suffix != ".parquet"):
        raise UserError(f"{output.name} has an unknown ending. Write .jsonl or .txt (also .gz, .zst), or .parquet.")
    if output.is_dir():
        raise UserError(f"{output} is a folder, and the output is a file such as {output.name}/texts.jsonl.gz.")
    for source in inputs:
        if output.exists() and Path(source).exists() and output.samefile(source):
            raise UserError(f"The output {output} is also an input; inputs are never changed. Name another file.")
    if output.exists() and not force:
        raise UserError(f"{output} exists. Name a new file, or add --force to replace it.")
    try:
        with ExitStack() as files:
            try:
                raw = files.enter_context(replacing(output))
            except OSError as error:
                raise UserError(
                    f"Cannot write beside {output}: {error.strerror}. Name a folder you may write to."
                ) from error
            with ExitStack() as stack:
                yield CorpusWriter(_sink(kind, output.suffix, raw, stack), output)
            report_path(output).unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DarumeruError(
                f"No space left on the disk of {output}; nothing was written. Free some and repeat."
            ) from error
        raise


def _sink(kind: str, suffix: str, raw: IO[bytes], stack: ExitStack) -> Callable[[str], None]:
    if kind == "parquet":
        return _parquet(raw, stack)
    file = raw
    if suffix == ".gz":
        # No name and no time in the header, so that equal documents are equal bytes.
        file = stack.enter_context(cast("IO[bytes]", gzip.GzipFile("", "wb", 6, raw, mtime=0)))
    elif suffix == ".zst":
        need("zstandard", extra="lep")
        import zstandard

        compressor = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        file = stack.enter_context(cast("IO[bytes]", compressor))

    def put_line(text: str) -> None:
        if "\n" in text or "\r" in text:
            raise UserError(
                f"A document has line breaks, and a .txt file holds one document a line: {text[:60]!r}. "
                "Write .jsonl (also .gz, .zst) or .parquet."
            )
        file.write(text.encode() + b"\n")

    def put_row(text: str) -> None:
        file.write(dumps({"text": text}).encode() + b"\n")

    return put_line if kind == "txt" else put_row


def _parquet(raw: IO[bytes], stack: ExitStack) -> Callable[[str], None]:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("text", pyarrow.string())])
    file = stack.enter_context(pyarrow.parquet.ParquetWriter(raw, schema, compression="zstd"))
    held: list[str] = []
    size = 0

    def flush(*problem: object) -> None:
        nonlocal size
        if held and not any(problem):
            file.write_table(pyarrow.table({"text": held}, schema=schema))
        held.clear()
        size = 0

    def put(text: str) -> None:
        nonlocal size
        held.append(text)
        size += len(text)
        if size >= _BATCH:
            flush()

    stack.push(flush)
    return put


def report_path(output: Path) -> Path:
    """Return the place of a corpus file's report: `OUTPUT.report.json`."""
    return sibling(output, ".report.json")


def write_report(
    output: Path,
    stage: str,
    *,
    inputs: Sequence[str | Path],
    settings: Mapping[str, Any],
    measures: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the report beside a finished corpus and return it. Inputs are named by their last part, never by path."""
    report = {
        "format": 1,
        "stage": stage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [named(source) for source in inputs],
        "output": {"name": output.name, "bytes": output.stat().st_size},
        "settings": dict(settings),
        "measures": dict(measures),
        "versions": versions(),
    }
    write_json(report_path(output), report)
    return report


def named(source: str | Path) -> dict[str, Any]:
    """A source in a report: name and size of a file, or the hub's name for a data set."""
    path = Path(source)
    return {"name": path.name, "bytes": path.stat().st_size} if path.is_file() else {"name": str(source)}


def example(text: str, length: int = 120) -> str:
    """Return the start of a text for a report; half characters, which UTF-8 cannot hold, become escapes."""
    return text[:length].encode("utf-8", "backslashreplace").decode()


def watched(texts: Iterable[str], title: str) -> Iterator[str]:
    """The texts; how many have passed is shown on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from texts
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        characters = 0
        for number, text in enumerate(texts, 1):
            yield text
            characters += len(text)
            if number % 100 == 0:
                shown = f"{title}: {number:,} documents, {characters / 1e6:,.1f} M characters"
                progress.update(task, description=shown)
