"""Measures on text that nothing is trained on: bits per byte, and the share of new tokens in what a model writes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.data.texts import read_all
from darumeru.errors import UserError
from darumeru.files import fingerprint
from lep.measure.bits import cut_pieces, model_bits_per_byte

BITS = "bits_per_byte"
SHARE = "share_of_new_tokens"
_PROMPT = 200
"""Characters that the model is asked to go on from."""


def labelled(source: str) -> tuple[str, str]:
    """Return the name and the file of NAME=FILE; of a FILE alone its own name, also where a folder's name has an equals sign."""
    name, equals, file = source.partition("=")
    if not equals or (not Path(file).is_file() and (Path(source).is_file() or "/" in name)):
        name, file = "", source
    return name or Path(file).name.partition(".")[0], file


@dataclass(frozen=True)
class HeldOut:
    """Texts by name, in pieces for bits per byte, and prefixes of some of them."""

    pieces: dict[str, list[str]]
    prompts: dict[str, list[str]]

    @classmethod
    def read(
        cls, sources: Sequence[str], *, field: str = "text", characters: int = 50_000, prompts: int = 4
    ) -> HeldOut:
        """Read the prefixes of texts.

        Args:
            sources: FILE or NAME=FILE; without a name, the file's.
            field: text field of the files.
            characters: to read of each at most.
            prompts: prefixes of each that the model continues.

        Raises:
            UserError: there is no such file, or nothing in it.
        """
        pieces: dict[str, list[str]] = {}
        beginnings: dict[str, list[str]] = {}
        for source in sources:
            name, file = labelled(source)
            if name in pieces:
                raise UserError(f"Two held-out texts are called {name}. Name them: --held-out ru=FILE en=FILE.")
            texts = read_all([file], field=field, limit=characters)
            texts[-1] = texts[-1][: len(texts[-1]) - max(sum(map(len, texts)) - characters, 0)]
            pieces[name] = cut_pieces(texts)
            whole = [text for text in texts if len(text) > _PROMPT] or texts
            beginnings[name] = [text[:_PROMPT].rpartition(" ")[0] or text for text in whole[:prompts]]
        return cls(pieces, beginnings)

    @property
    def fingerprint(self) -> str:
        """Of the texts by name."""
        return fingerprint(self.pieces)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of each text."""
        return {name: fingerprint(pieces) for name, pieces in self.pieces.items()}

    def measure(self, model: Any, tokenizer: Any, new_ids: Collection[int] = ()) -> dict[str, float]:
        """Bits per byte of each text and their mean, and the share of new tokens in what the model writes.

        Args:
            model: a causal language model; left in eval mode.
            tokenizer: its tokenizer.
            new_ids: the tokens that are new; without, their share is not measured.
        """
        if not self.pieces:
            return {}
        model.eval()
        bits = {name: model_bits_per_byte(model, tokenizer, pieces) for name, pieces in self.pieces.items()}
        result = {BITS: sum(bits.values()) / len(bits)}
        result |= {f"{BITS}_{name}": value for name, value in bits.items()} if len(bits) > 1 else {}
        if new_ids:
            shares = {
                name: new_tokens_written(model, tokenizer, prompts, new_ids).share
                for name, prompts in self.prompts.items()
            }
            result[SHARE] = sum(shares.values()) / len(shares)
            result |= {f"{SHARE}_{name}": value for name, value in shares.items()} if len(shares) > 1 else {}
        return result


@dataclass(frozen=True)
class NewTokens:
    """New tokens in what a model writes.

    Attributes:
        share: of all tokens that it wrote, ``new / written`` (0 where it wrote none).
        taken: of the chances to write one, ``new / possible``: the tokenizer's encoding of the same text has ``possible`` new
            tokens; a model that spells words in old pieces is below 1. None where there was no chance.
    """

    share: float
    taken: float | None


def new_tokens_written(
    model: Any, tokenizer: Any, prompts: Sequence[str], new_ids: Collection[int], *, max_new_tokens: int = 48
) -> NewTokens:
    """Count the new tokens among those that the model writes greedily after the prompts.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer.
        prompts: texts to go on from.
        new_ids: the tokens that are new.
        max_new_tokens: most tokens written after each prompt.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import GenerationConfig

    if not prompts:
        return NewTokens(0.0, None)
    # The model's own settings may sample or punish repetitions.
    end = getattr(model.generation_config, "eos_token_id", None) or tokenizer.eos_token_id
    ends = frozenset([end] if isinstance(end, int) else end or ())
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=end,
        pad_token_id=tokenizer.eos_token_id,
    )
    # All at once: a pass over one row takes a GPU, which waits for its next kernel, as long as a pass over many.
    encoded = [torch.tensor(tokenizer(prompt)["input_ids"], device=model.device) for prompt in prompts]
    ids, mask = (
        pad_sequence(rows, batch_first=True, padding_side="left")
        for rows in (encoded, [torch.ones_like(row) for row in encoded])
    )
    with torch.no_grad():
        written_ids = model.generate(ids, attention_mask=mask, generation_config=settings)[:, ids.shape[1] :].tolist()
    new, written, found, possible = frozenset(new_ids), 0, 0, 0
    for row in written_ids:
        answer = row[: next((at for at, token in enumerate(row, 1) if token in ends), len(row))]
        written += len(answer)
        found += sum(token in new for token in answer)
        again = tokenizer(tokenizer.decode(answer), add_special_tokens=False)["input_ids"]
        possible += sum(token in new for token in again)
    return NewTokens(found / written if written else 0.0, found / possible if possible else None)
