"""Bits per UTF-8 byte of running text, which compare across tokenizers. Lower is better."""

from darumeru.data.bundle import Row, Split, read_rows
from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.requests import Query
from darumeru.scoring.bits import pieces
from darumeru.task import DarumeruTask


class BitsPerByte(DarumeruTask):
    """-log2 of the probability of a text, over its length in bytes."""

    @property
    def primary(self) -> tuple[str, ...]:
        """Bits per byte."""
        return ("bits_per_byte",)

    def split(self, split: str) -> Split:
        """The rows of the data set or of the file of `--corpus`, in pieces of `darumeru.scoring.bits`."""
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
        cut = [{"text": p, "row": i} for i, row in enumerate(rows) for p in pieces(self._text(row))]
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
