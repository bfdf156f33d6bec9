"""Bits per byte of a model folder or of a model in memory, on texts cut as `darumeru.scoring.bits` says.

A piece of more tokens than the model has positions for is read in windows of as many, alike in length, each behind the token that
texts begin with: every byte is predicted, by what the model can see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.scoring.bits import pieces
from lep.model.loading import load_model


def bits_per_byte(folder: Path, texts: Sequence[str], *, device: str = "cpu") -> float:
    """Return bits per byte of texts, as the tasks `bpb_*` measure them.

    Args:
        folder: a model folder.
        texts: documents.
        device: where the model runs.

    Raises:
        UserError: the texts are empty.
    """
    from transformers import AutoTokenizer

    cut = cut_pieces(texts)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = load_model(folder).to(device)
    return model_bits_per_byte(model, tokenizer, cut)


def cut_pieces(texts: Sequence[str]) -> list[str]:
    """Return the texts in pieces, without those of white space only.

    Raises:
        UserError: there are none.
    """
    found = [piece for text in texts for piece in pieces(text)]
    if not found:
        raise UserError("The held-out text is empty; bits per byte need some text.")
    return found


def model_bits_per_byte(model: Any, tokenizer: Any, cut: Sequence[str]) -> float:
    """Return bits per byte for a model in memory, which must be in eval mode, and pieces from `cut_pieces`."""
    import torch

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        start = 0
    nats, longest = 0.0, positions(model)
    for piece in cut:
        for window in _windows(tokenizer(piece, add_special_tokens=False)["input_ids"], longest):
            tokens = torch.tensor([[start, *window]], device=model.device)
            with torch.no_grad():
                logits = model(tokens).logits[0, :-1].float()
            nats += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
    return nats / math.log(2) / sum(len(piece.encode()) for piece in cut)


def positions(model: Any) -> int | None:
    """Return how many tokens a model was made to see at once; None where its configuration does not say."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def _windows(ids: Sequence[int], longest: int | None) -> Iterator[Sequence[int]]:
    """Yield tokens in as few runs of equal length as leave room for a token before each."""
    room = len(ids) if longest is None else longest - 1
    count = max(-(-len(ids) // max(room, 1)), 1)
    size = max(-(-len(ids) // count), 1)
    for start in range(0, max(len(ids), 1), size):
        yield ids[start : start + size]
