"""Bits per UTF-8 byte of running text, which compare across tokenizers. Lower is better."""

from darumeru.data.bundle import Row, Split, read_rows
from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.requests import Query
from darumeru.task import DarumeruTask

PIECE = 2000
"""Characters of a piece. Pieces are cut by characters, not by tokens, so that every tokenizer gets the same contexts."""


def pieces(text: str, size: int = PIECE) -> list[str]:
    """A text in pieces of about `size` characters, cut at line ends or spaces where there are any."""
    found = []
    while len(text) > size:
        cut = max(text.rfind("\n", size // 2, size), 0) or max(text.rfind(" ", size // 2, size), 0) or size
        found.append(text[:cut])
        text = text[cut:]
    return [*found, text]


class BitsPerByte(DarumeruTask):
    """-log2 of the probability of a text, over its length in bytes."""

    @property
    def primary(self) -> tuple[str, ...]:
        """Bits per byte."""
        return ("bits_per_byte",)

    def split(self, split: str) -> Split:
        """The rows of the data set or of the file of `--corpus`, in pieces."""
        if self.name == "bpb_corpus" and self.corpus is not None:
            if self.corpus.suffix == ".txt":
                try:
                    rows: list[Row] = [{"text": self.corpus.read_text(encoding="utf-8")}]
                except (OSError, UnicodeDecodeError) as error:
                    raise UserError(f"--corpus '{self.corpus}' cannot be read as UTF-8 text ({error}).") from None
            else:
                rows = read_rows(self.corpus)
            source = {"source": f"file:{self.corpus.name}", "rows": len(rows), "sha256": fingerprint(rows)}
        else:
            loaded = super().split(split)
            rows, source = loaded.rows, loaded.source
        cut = [{"text": p, "row": i} for i, row in enumerate(rows) for p in pieces(self._text(row)) if p.strip()]
        return Split(cut, source)

    def _text(self, row: Row) -> str:
        text = row.get("text") or (row.get("inputs") or {}).get("text")
        if not isinstance(text, str):
            raise UserError(f"Task '{self.name}': field 'text' of a row is missing or no text.")
        return text

    def gold(self, doc: Row) -> str:
        """The text."""
        return str(doc["text"])

    def cluster(self, doc: Row) -> str:
        """The text that the piece was cut from."""
        return str(doc["row"])

    def asked(self, doc: Row) -> list[Query]:
        """The likelihood of the text on its own."""
        return [Query("likelihood", [], options=(self.gold(doc),), reference=self.gold(doc))]

    def queries(self, doc: Row) -> list[Query]:
        """Nothing else is asked."""
        return self.asked(doc)
