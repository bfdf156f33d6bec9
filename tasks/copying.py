"""DaruCopy: can the model write a text down again, and in how many tokens?"""

from collections.abc import Sequence

from darumeru.data.bundle import Row
from darumeru.requests import Answer
from darumeru.scoring.aggregate import mean
from darumeru.scoring.text import lcs_share, length_ratio
from darumeru.task import GenerateTask, Score

COPIED = 0.99
"""The share of the source that must come back for a copy to count."""


class Copy(GenerateTask):
    """`len`: the ratio of token counts, generated and source; `lcs`: the share of answers that hold the source.

    `len` needs the tokens that the model really generated: the answer tokenized again would hide a model that spells words
    in small old tokens. Beside them: `symbols_per_token` of the answer and `tokens_per_word`.
    """

    METRICS = {"len": mean, "lcs": mean, "symbols_per_token": mean, "tokens_per_word": mean}

    def gold(self, doc: Row) -> str:
        """Return the source text."""
        text = doc["inputs"]["text"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError("field 'inputs.text' must be a non-empty text")
        return text

    def reference(self, doc: Row) -> str:
        """Return the source text."""
        return self.gold(doc)

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return length ratio and coverage of the answer."""
        answer, source, source_tokens = answers[0], self.gold(doc), reference_tokens[0]
        text, generated = answer.text, len(answer.tokens)
        share = lcs_share(source, text)
        metrics = {"len": 0.0, "lcs": 0.0, "symbols_per_token": 0.0, "tokens_per_word": 0.0}
        if text.strip() and generated and source_tokens:
            limit = int(self.config.generation_kwargs["max_gen_toks"])
            metrics = {
                "len": length_ratio(generated, min(source_tokens, limit)),
                "lcs": float(share >= COPIED),
                "symbols_per_token": len(text) / generated,
                "tokens_per_word": generated / len(text.split()),
            }
        return Score(metrics, cluster=self.cluster(doc), extra={"lcs_share": round(share, 4)})
