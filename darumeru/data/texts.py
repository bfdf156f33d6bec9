"""Corpora: plain text, JSON lines or Parquet, gz or zst, or a hub data set; always streamed."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from darumeru import hub
from darumeru.errors import UserError
from darumeru.extras import need

_SURROGATE = re.compile("[\ud800-\udfff]")
_HUB = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]*))?(:(?P<split>[\w\[\]%:.-]*))?")


def read_texts(sources: Iterable[str | Path], *, field: str = "text", halves: bool = False) -> Iterator[str]:
    """Yield the documents of all sources, one after another; nothing but the current one is kept.

    Args:
        sources: files ending in .txt, .jsonl or .parquet (the first two also with .gz or .zst), or
            `hub:owner/name[:configuration[:split]]`.
        field: the field of JSON lines, Parquet and data sets that holds the text.
        halves: texts with half a character (a lone surrogate, which JSON can carry and no tokenizer takes) are given, too.

    Raises:
        UserError: a missing file, an unknown ending, text that is not UTF-8, a missing field, half a character.
    """
    for source in sources:
        if str(source).startswith("hub:"):
            yield from _hub(str(source), field)
            continue
        path = Path(source)
        if not path.is_file():
            raise UserError(f"There is no text file {path}. Name files, or hub:owner/name for a hub data set.")
        kind = text_kind(path)
        if kind == "parquet":
            yield from _parquet(path, field)
        elif kind == "jsonl":
            yield from _jsonl(path, field, halves)
        elif kind == "txt":
            yield from _lines(path)
        else:
            raise UserError(f"{path} has an unknown ending; .txt, .jsonl and .parquet (also .gz, .zst) can be read.")


def text_kind(path: Path) -> str | None:
    """Return the kind of a file by its name: "txt" (one a line), "jsonl", "parquet", or None for an unknown ending."""
    ending = path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2].lower()
    kinds = {"txt": "txt", "text": "txt", "md": "txt", "jsonl": "jsonl", "json": "jsonl", "ndjson": "jsonl"}
    return "parquet" if ending == "parquet" else kinds.get(ending)


def read_all(sources: Sequence[str | Path], *, field: str = "text", limit: int | None = None) -> list[str]:
    """Return the documents as a list, at most `limit` characters in all.

    Raises:
        UserError: there is no text at all.
    """
    texts: list[str] = []
    total = 0
    for text in read_texts(sources, field=field):
        if text.strip():
            texts.append(text)
            total += len(text)
        if limit is not None and total >= limit:
            break
    if not texts:
        raise UserError(f"There is no text in {', '.join(map(str, sources))}.")
    return texts


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield cast("IO[bytes]", file)
    elif path.suffix == ".zst":
        need("zstandard", extra="lep")
        import zstandard

        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as file:
            yield cast("IO[bytes]", io.BufferedReader(cast("Any", file), 1 << 20))
    else:
        with path.open("rb") as plain:
            yield plain


def _decoded(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                # Only the first line may carry a byte-order mark.
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (line {number + 1 if number == 0 else number}, byte {error.start}). "
            "Convert it first, for example with iconv."
        ) from None
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} is not a whole compressed file ({error}). Fetch it again.") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise UserError(f"{path} is not a whole compressed file ({error}). Fetch it again.") from None
        raise


def _lines(path: Path) -> Iterator[str]:
    for _, line in _decoded(path):
        yield line.rstrip("\r\n")


def _jsonl(path: Path, field: str, halves: bool) -> Iterator[str]:
    for number, line in _decoded(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"Line {number} of {path} is not JSON ({error.msg}). One object a line is read.") from None
        text = row.get(field) if isinstance(row, dict) else None
        if isinstance(row, dict) and field in row and not isinstance(text, str):
            raise UserError(
                f"Line {number} of {path} has {json.dumps(text)[:40]} in its field {field!r}, where a text is wanted. Leave the "
                "line out, or name another field with --field."
            )
        if not isinstance(text, str):
            fields = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"Line {number} of {path} has no text field {field!r} (it has: {fields}). Use --field.")
        if not halves and _SURROGATE.search(text):
            raise UserError(
                f"Line {number} of {path} has half a character (a lone surrogate, as where a text was cut inside an emoji). "
                "Leave the line out; lep corpus clean takes such halves away."
            )
        yield text


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is not a whole Parquet file ({error}). Fetch it again.") from None
    if field not in file.schema_arrow.names:
        raise UserError(f"{path} has no column {field!r} (it has: {', '.join(file.schema_arrow.names)}). Use --field.")
    for batch in file.iter_batches(batch_size=1024, columns=[field]):
        yield from (str(text) for text in batch.column(0).to_pylist() if text)


def _hub(source: str, field: str) -> Iterator[str]:
    match = _HUB.fullmatch(source)
    if match is None:
        raise UserError(f"{source} is no hub data set; write hub:owner/name, hub:owner/name:configuration:split.")
    for row in hub.stream_rows(
        match["name"], match["config"] or None, match["split"] or "train", advice="Without the hub, name local files."
    ):
        if not isinstance(row.get(field), str):
            raise UserError(f"{source} has no text field {field!r} (it has: {', '.join(row)}). Use --field.")
        yield row[field]
