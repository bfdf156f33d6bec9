"""Training text as blocks of tokens: tokenized once, kept on disk, read in an order that a seed decides.

Every block begins at the start of a document or of a paragraph and belongs to one document. A paragraph longer than a
block is cut at the block's end and its rest is left out, since a block there would begin in the middle of a sentence.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.data.texts import read_texts
from darumeru.errors import UserError
from darumeru.files import file_sha256, read_json, write_json
from darumeru.record.folder import unchanged
from lep.model.folders import files_fingerprint, new_folder
from lep.tokenizer.scripts import count_script

if TYPE_CHECKING:
    from numpy.typing import NDArray

META = "blocks.json"
_TOKENS, _ENDS = "tokens.bin", "ends.bin"
_PIECE = 1 << 16
"""Characters tokenized in one go, so that a book of one document needs no more memory than a chapter."""
_BATCH = 64
_IGNORE = -100


@dataclass(frozen=True)
class Counts:
    """Counts of a corpus that was cut into blocks.

    Attributes:
        documents: documents read.
        blocks: blocks made of them.
        tokens: tokens in the blocks.
        characters: characters read.
        left_out: share of the characters that are in no block (rests of paragraphs longer than a block).
        letters: letters read.
        in_scripts: share of the letters that belong to the expected scripts.
        refused: documents that are conversations which the chat template does not write.
    """

    documents: int
    blocks: int
    tokens: int
    characters: int
    left_out: float
    letters: int
    in_scripts: float
    refused: int = 0

    @property
    def kept(self) -> float:
        """Characters that are in blocks."""
        return self.characters * (1 - self.left_out)


class Blocks:
    """Blocks on disk: `blocks[i]` gives the token ids of block i; nothing else is in memory."""

    def __init__(self, folder: Path) -> None:
        meta = read_json(folder / META)
        self.counts = Counts(**meta["counts"])
        self.fingerprint: str = meta["fingerprint"]
        self._tokens = np.memmap(folder / _TOKENS, dtype=np.uint32, mode="r")
        self._ends = np.memmap(folder / _ENDS, dtype=np.int64, mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        start = int(self._ends[index - 1]) if index else 0
        return np.asarray(self._tokens[start : int(self._ends[index])], dtype=np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each block."""
        return np.diff(np.asarray(self._ends), prepend=0)


def open_blocks(
    corpus: Sequence[str | Path],
    tokenizer: Any,
    folder: Path,
    *,
    block_size: int,
    field: str = "text",
    scripts: tuple[str, ...] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Blocks:
    """Return the blocks of a corpus, made once and found again in `folder` as long as corpus, tokenizer and size stay.

    A block is the tokenizer's start token (BOS, else EOS: as `lep.measure.bits` scores texts), whole paragraphs, and EOS where
    the document ends. Texts that look like control tokens are tokenized as text.

    Args:
        corpus: sources for `darumeru.data.texts.read_texts`, streamed.
        tokenizer: a fast tokenizer of transformers.
        folder: where the blocks lie.
        block_size: most tokens of a block.
        field: text field of the corpus.
        scripts: scripts that the letters are counted for.
        progress: is told the number of documents from time to time.

    Raises:
        UserError: an empty corpus, a tokenizer without fast implementation or without BOS and EOS, a tiny block size.
    """
    backend = _backend(tokenizer)
    start, end = start_token(tokenizer), tokenizer.eos_token_id
    fingerprint = blocks_fingerprint(corpus, tokenizer, block_size=block_size, field=field, scripts=scripts)
    if (found := found_blocks(folder, fingerprint)) is not None:
        return found
    room = block_size - 2
    documents = blocks = tokens = characters = kept = letters = in_scripts = 0
    with new_folder(folder, force=True) as place:
        with (place / _TOKENS).open("wb") as token_file, (place / _ENDS).open("wb") as end_file:
            pieces = _pieces(read_texts(corpus, field=field))
            while batch := list(islice(pieces, _BATCH)):
                for (text, last), encoded in zip(
                    batch, backend.encode_batch([text for text, _ in batch], add_special_tokens=False), strict=True
                ):
                    characters += len(text)
                    documents += last
                    letters += sum(map(str.isalpha, text))
                    in_scripts += count_script(text, scripts) if scripts else 0
                    offsets, total = encoded.offsets, len(encoded.ids)
                    for begin, stop in cut_at_paragraphs(paragraph_tokens(text, offsets), total, room):
                        ids = [start, *encoded.ids[begin:stop]]
                        if last and stop == total and end is not None:
                            ids.append(end)
                        tokens += len(ids)
                        blocks += 1
                        kept += offsets[stop - 1][1] - offsets[begin][0]
                        token_file.write(np.array(ids, dtype=np.uint32).tobytes())
                        end_file.write(np.array([tokens], dtype=np.int64).tobytes())
                progress(documents)
        if not blocks:
            raise UserError(f"There is no text in {', '.join(map(str, corpus))}.")
        left_out = max(1 - kept / characters, 0.0)
        counts = Counts(documents, blocks, tokens, characters, left_out, letters, in_scripts / max(letters, 1))
        note_blocks(place, fingerprint, counts)
    return Blocks(folder)


def found_blocks(folder: Path, fingerprint: str) -> Blocks | None:
    """Return the blocks that lie in a folder already, made from these inputs."""
    with suppress(UserError, AttributeError, KeyError, TypeError):  # whatever lies there instead is replaced
        meta = read_json(folder / META)
        sums = meta.get("sha256", {})  # none by an earlier version
        if meta["fingerprint"] == fingerprint and all(unchanged(folder / name, sums[name]) for name in sums):
            return Blocks(folder)
    return None


def note_blocks(folder: Path, fingerprint: str, counts: Counts) -> None:
    """Write what the blocks in a folder are, when all of them are there."""
    sums = {name: file_sha256(folder / name) for name in (_TOKENS, _ENDS)}
    write_json(folder / META, {"fingerprint": fingerprint, "counts": asdict(counts), "sha256": sums})


def blocks_fingerprint(
    corpus: Sequence[str | Path], tokenizer: Any, *, block_size: int, field: str = "text", scripts: tuple[str, ...] = ()
) -> str:
    """Return a fingerprint of the inputs of `open_blocks`: names, sizes and samples of the files, tokenizer, settings.

    Raises:
        UserError: as there.
    """
    if block_size < 8:
        raise UserError(f"--block-size must be at least 8, not {block_size}.")
    files = [Path(source) for source in corpus if not str(source).startswith("hub:")]
    for path in files:
        if not path.is_file():
            raise UserError(f"There is no text file {path}. Name files, or hub:owner/name for a hub data set.")
    hubs = [str(source) for source in corpus if str(source).startswith("hub:")]
    backend = _backend(tokenizer)
    parts = [files_fingerprint(files), hubs, backend.to_str(), start_token(tokenizer), tokenizer.eos_token_id]
    return "sha256-sampled:" + hashlib.sha256(json.dumps([*parts, block_size, field, scripts]).encode()).hexdigest()


def start_token(tokenizer: Any) -> int:
    """Return the token that a text begins with: BOS, EOS where there is none.

    Raises:
        UserError: the tokenizer has neither.
    """
    for index in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if index is not None:
            return int(index)
    raise UserError("The tokenizer has neither a BOS nor an EOS token. Set one in its tokenizer_config.json.")


def paragraph_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the tokens that a paragraph (a line that is not empty) begins with; the first is 0.

    A paragraph whose start lies inside a token is no place to begin at and is left to the one before it.

    Args:
        text: what was tokenized.
        offsets: for each token its first character and the one after its last.
    """
    starts = [0]
    position = 0
    count = len(offsets)
    at = text.find("\n")
    while at >= 0:
        at += 1
        if at < len(text) and text[at] != "\n":
            # Tokenizers may trim white space from offsets: tokens of nothing but that are empty here.
            while position < count and (offsets[position][0] < at or offsets[position][0] == offsets[position][1]):
                position += 1
            if position < count and position > starts[-1] and offsets[position - 1][1] <= at:
                starts.append(position)
        at = text.find("\n", at)
    return starts


def cut_at_paragraphs(starts: Sequence[int], total: int, room: int) -> Iterator[tuple[int, int]]:
    """Yield blocks [begin, stop) of at most `room` tokens, each beginning at one of `starts`, as few as greed gives.

    Args:
        starts: tokens that a paragraph begins with, rising, the first 0.
        total: tokens in all.
        room: most tokens of a block.
    """
    begin = 0
    for start, following in pairwise([*starts, total]):
        if following - begin <= room:
            continue
        if start > begin:
            yield begin, start
            begin = start
        if following - start > room:
            yield start, start + room
            begin = following
    if begin < total:
        yield begin, total


def pack_rows(lengths: NDArray[np.int64], size: int, seed: int) -> list[NDArray[np.int64]]:
    """Return blocks put together to rows of at most `size` tokens: best fit, longest first, equal ones in random order.

    Args:
        lengths: tokens of each block, none above `size`.
        size: most tokens of a row.
        seed: of the random order.

    Returns:
        The blocks of each row.
    """
    shuffled = np.random.default_rng([seed, 1]).permutation(len(lengths))
    order = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}
    sizes: list[int] = []  # the keys of `free` that hold rows, rising
    for block in order.tolist():
        length = int(lengths[block])
        at = bisect.bisect_left(sizes, length)
        if at == len(sizes):
            row, left = len(rows), size
            rows.append([])
        else:
            left = sizes[at]
            row = free[left].pop()
            if not free[left]:
                del sizes[at]
        rows[row].append(block)
        left -= length
        stack = free.setdefault(left, [])
        if not stack:
            bisect.insort(sizes, left)
        stack.append(row)
    return [np.array(row, dtype=np.int64) for row in rows]


class TrainingRows:
    """The rows that a training reads, in order: item i is the i-th row of an endless walk over the rows, anew shuffled each time.

    The order is a function of seed and i alone, so a training that resumes at step n reads what it would have read.
    """

    def __init__(self, blocks: Blocks, *, block_size: int, packing: bool, seed: int) -> None:
        self.blocks = blocks
        self.seed = seed
        self.rows = (
            pack_rows(blocks.lengths, block_size, seed)
            if packing
            else [np.array([index]) for index in range(len(blocks))]
        )
        self._pass, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        turn, place = divmod(index, len(self.rows))
        if turn != self._pass:
            self._pass = turn
            self._order = np.random.default_rng([self.seed, 2, turn]).permutation(len(self.rows))
        row = int(self._order[place])
        return {"row": row, "blocks": [self.blocks[int(block)] for block in self.rows[row]]}


@dataclass(frozen=True)
class Collator:
    """Rows → a batch: input_ids, labels, position_ids (batch x width), rows and tokens (batch).

    Position ids begin anew with each document; from that transformers makes the block-diagonal mask which keeps packed
    documents apart. Rows are filled up at their end with the start token, which nothing before it sees; the first token
    of a document and the filling have no label.
    """

    start: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Batch the items of `TrainingRows`."""
        import torch

        tokens = [sum(map(len, item["blocks"])) for item in items]
        shape = (len(items), max(tokens))
        ids = np.full(shape, self.start, dtype=np.int64)
        labels = np.full(shape, _IGNORE, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(items):
            at = 0
            for block in item["blocks"]:
                stop = at + len(block)
                ids[row, at:stop] = block
                labels[row, at + 1 : stop] = block[1:]
                positions[row, at:stop] = np.arange(len(block))
                at = stop
            # The filling counts on: another document there would cost a mask in rows that need none.
            positions[row, at:] = np.arange(len(block), len(block) + shape[1] - at)
        return {
            "input_ids": torch.from_numpy(ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(positions),
            "rows": torch.tensor([item["row"] for item in items]),
            "tokens": torch.tensor(tokens),
        }


def _backend(tokenizer: Any) -> Any:
    from tokenizers import Tokenizer

    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError("The tokenizer has no fast implementation (tokenizer.json); lep works on those only.")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    # A text about chat templates is no chat.
    backend.encode_special_tokens = True
    return backend


def _pieces(texts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield documents in pieces that begin at a paragraph, and whether a document ends with the piece."""
    for text in texts:
        if not text.strip():
            continue
        start = 0
        while len(text) - start > _PIECE:
            stop = text.rfind("\n", start, start + _PIECE) + 1
            if stop > start:
                yield text[start:stop], False
                start = stop
                continue
            # One paragraph of this length: no block reaches its end.
            stop = text.find("\n", start + _PIECE) + 1
            yield text[start : stop or len(text)][:_PIECE], not stop
            start = stop or len(text)
        if start < len(text):
            yield text[start:], True
