"""A tokenizer seen as bytes: what each token stands for, and how a text is segmented without added spaces.

`tokenizer.json` is the authority. A SentencePiece `.model` beside it is ignored: it merges by piece score where
`tokenizer.json` merges by its list of pairs, and only the list can be continued.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darumeru.errors import UserError, one_line
from darumeru.files import read_json
from lep.model.checkpoint import locate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Family = Literal["byte-level", "sentencepiece", "unigram"]
SPACE = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> list[str]:
    """Return GPT-2's printable stand-ins for the 256 bytes, by byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    stand_ins = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in stand_ins:
            stand_ins[byte] = chr(256 + len(stand_ins) - len(printable))
    return [stand_ins[byte] for byte in range(256)]


BYTE_TO_CHAR = _byte_alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}
_TO_CHARS = dict(enumerate(BYTE_TO_CHAR))


def bytes_to_chars(data: bytes) -> str:
    """Return the way a byte-level tokenizer writes these bytes."""
    return data.decode("latin-1").translate(_TO_CHARS)


def chars_to_bytes(token: str) -> bytes | None:
    """Return the bytes of a byte-level token, or None where it holds a character outside the alphabet."""
    try:
        return bytes(CHAR_TO_BYTE[char] for char in token)
    except KeyError:
        return None


class Vocabulary:
    """A tokenizer folder: its JSON, its tokens as bytes, and its `tokenizers` object.

    Attributes:
        folder: where it was read, or None for one made in memory.
        spec: the content of `tokenizer.json`.
        family: byte-level BPE, SentencePiece-style BPE, or Unigram.
        ids: token as written → id, added tokens included.
        added: id → entry of `added_tokens`.
    """

    def __init__(self, spec: dict[str, Any], folder: Path | None = None) -> None:
        self.spec = spec
        self.folder = folder
        self.family: Family = _family(spec, folder)
        model = spec["model"]
        if self.family == "unigram":
            self.ids: dict[str, int] = {piece: index for index, (piece, _) in enumerate(model["vocab"])}
        else:
            self.ids = dict(model["vocab"])
        self.added: dict[int, dict[str, Any]] = {entry["id"]: entry for entry in spec.get("added_tokens", [])}
        for index, entry in self.added.items():
            self.ids[entry["content"]] = index

    @classmethod
    def load(cls, source: str | Path) -> Vocabulary:
        """Read the tokenizer of a folder or hub id.

        Raises:
            UserError: no `tokenizer.json` there, one that cannot be read, or a tokenizer of a family that is not supported.
        """
        folder = locate(source, weights=False)
        if not (folder / "tokenizer.json").is_file():
            raise UserError(
                f"{folder} has no tokenizer.json. Load it with transformers' AutoTokenizer, then save_pretrained it."
            )
        file = folder / "tokenizer.json"
        spec = read_json(file)
        try:
            found = cls(spec, folder)
            found.tokenizer, found.merges, found.size, found.by_bytes  # noqa: B018 - read now what may be wrong in it
        except UserError:
            raise
        except Exception as error:  # tokenizers has no type of its own for them
            raise UserError(
                f"{file} is no tokenizer that can be read ({one_line(error)}). Save or fetch it again."
            ) from None
        return found

    @property
    def size(self) -> int:
        """One more than the largest id: the rows that a model needs."""
        return max(self.ids.values()) + 1

    @cached_property
    def strings(self) -> dict[int, str]:
        """Id → token as written."""
        return {index: token for token, index in self.ids.items()}

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """The merge list; both ways of writing it (pairs, and strings with one space) are read."""
        merges = self.spec["model"].get("merges", [])
        pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in merges)
        return [(left, right) for left, right in pairs]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The whole tokenizer, truncation and padding off."""
        from tokenizers import Tokenizer

        made = Tokenizer.from_str(json.dumps(self.spec))
        made.no_truncation()
        made.no_padding()
        return made

    @cached_property
    def bare(self) -> Tokenizer:
        """The model alone: no normaliser, no splitting, no added tokens; takes text as `written` gives it."""
        from tokenizers import Tokenizer

        return Tokenizer(Tokenizer.from_str(json.dumps({**self.spec, "added_tokens": []})).model)

    def is_special(self, index: int) -> bool:
        """Return whether this id is an added token with the special flag (a control token)."""
        return bool(self.added.get(index, {}).get("special", False))

    def written(self, text: str) -> str:
        """Return a piece of text as the model's own alphabet writes it, with no space added at the start."""
        if self.family == "byte-level":
            return bytes_to_chars(text.encode("utf-8", errors="surrogatepass"))
        return text.replace(" ", SPACE)

    def bytes_of(self, index: int) -> bytes:
        """Return the bytes that a token stands for in a text (an added token: its own text)."""
        if index in self.added:
            content: str = self.added[index]["content"]
            return content.encode()
        return self.bytes_of_written(self.strings[index])

    def bytes_of_written(self, token: str) -> bytes:
        """Return the bytes of a token as written in the vocabulary."""
        if self.family == "byte-level":
            data = chars_to_bytes(token)
            return token.encode() if data is None else data
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()

    def is_byte(self, index: int) -> bool:
        """Return whether the token is one byte of the alphabet, which every text may need."""
        token = self.strings[index]
        return len(token) == 1 if self.family == "byte-level" else _BYTE_TOKEN.fullmatch(token) is not None

    @cached_property
    def by_bytes(self) -> dict[bytes, int]:
        """Bytes → id of the ordinary token that stands for them; a character wins over its byte-fallback token."""
        found: dict[bytes, int] = {}
        for token, index in self.ids.items():
            if index in self.added:
                continue
            data = self.bytes_of_written(token)
            if data not in found or _BYTE_TOKEN.fullmatch(token) is None:
                found[data] = index
        return found

    def same_token(self, other: Vocabulary, index: int) -> int | None:
        """Return the id here of a token of another vocabulary, or None where this one lacks it.

        Added tokens are the same if their text is; a control token is nothing else. A byte-fallback token (`<0x31>`) is
        the byte-fallback token of that byte, which is not the character's own token (`1`): one stands where the other
        cannot. All others are the same if their bytes are (never by decoded text: several incomplete UTF-8 tokens all
        decode to "�").
        """
        token = other.strings[index]
        if index in other.added:
            found = self.by_added_text.get(token)
            if found is not None or other.is_special(index):
                return found
        elif _BYTE_TOKEN.fullmatch(token) and token in self.ids and "byte-level" not in (self.family, other.family):
            return self.ids[token]
        return self.by_bytes.get(other.bytes_of(index))

    @cached_property
    def by_added_text(self) -> dict[str, int]:
        """Text of an added token → its id."""
        return {entry["content"]: index for index, entry in self.added.items()}

    def pieces(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Segment pieces of text (bytes, not necessarily valid UTF-8) as they stand inside a text, in one batch.

        An empty list means that the vocabulary cannot write the piece at all.
        """
        if self.family == "byte-level":
            parts = [[bytes_to_chars(data)] for data in texts]
        else:
            parts = [_valid_parts(data) for data in texts]
        flat = [part for piece in parts for part in piece]
        encoded = iter(self.bare.encode_batch_fast(flat, add_special_tokens=False))
        unknown = self.spec["model"].get("unk_token")
        unknown_id = self.ids.get(unknown) if isinstance(unknown, str) else self.spec["model"].get("unk_id")
        result = []
        for piece in parts:
            ids: list[int] = []
            for part in piece:
                own = next(encoded).ids
                byte = self.ids.get(part) if _BYTE_TOKEN.fullmatch(part) else None
                ids += [byte] if byte is not None else own
            result.append([index for index in ids if index != unknown_id])
        return result


def _family(spec: dict[str, Any], folder: Path | None) -> Family:
    kind = spec.get("model", {}).get("type")
    if kind == "Unigram":
        return "unigram"
    if kind == "BPE" or (kind is None and "merges" in spec.get("model", {})):
        if any(part.get("type") == "ByteLevel" for part in _parts(spec.get("pre_tokenizer"), spec.get("decoder"))):
            return "byte-level"
        return "sentencepiece"
    raise UserError(
        f"The tokenizer{f' in {folder}' if folder else ''} is of type {kind}; byte-level BPE, SentencePiece-style BPE "
        "and Unigram are supported."
    )


def _parts(*roots: Any) -> Iterable[dict[str, Any]]:
    for root in roots:
        if isinstance(root, dict):
            yield root
            for key in ("pretokenizers", "decoders", "normalizers"):
                yield from _parts(*root.get(key, []))


def _valid_parts(data: bytes) -> list[str]:
    """Return bytes cut into valid text (spaces as ▁) and byte tokens for what is not valid."""
    parts: list[str] = []
    start = 0
    while start < len(data):
        try:
            parts.append(data[start:].decode().replace(" ", SPACE))
            break
        except UnicodeDecodeError as error:
            if error.start:
                parts.append(data[start : start + error.start].decode().replace(" ", SPACE))
            bad = data[start + error.start : start + error.end]
            parts += [f"<0x{byte:02X}>" for byte in bad]
            start += error.end
    return parts
