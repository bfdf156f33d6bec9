"""Bits per byte: how well a model predicts a text, comparable across tokenizers (perplexity per token is not)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import UserError

PIECE = 1000
"""Characters scored at a time. Pieces are cut by characters, so that every tokenizer sees the same contexts."""


def bits_per_byte(folder: Path, texts: Sequence[str], *, device: str = "cpu") -> float:
    """``−Σ log2 p(token | tokens before) / bytes`` over texts cut into pieces of at most 1,000 characters.

    Every piece begins with the model's BOS token (EOS where it has none), so that every byte is predicted.

    Args:
        folder: a model folder.
        texts: documents.
        device: where the model runs.

    Raises:
        UserError: the texts are empty.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pieces = cut_pieces(texts)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
    return model_bits_per_byte(model, tokenizer, pieces)


def cut_pieces(texts: Sequence[str]) -> list[str]:
    """The texts in pieces of at most 1,000 characters, without those of white space only.

    Raises:
        UserError: there are none.
    """
    pieces = [text[start : start + PIECE] for text in texts for start in range(0, len(text), PIECE)]
    pieces = [piece for piece in pieces if piece.strip()]
    if not pieces:
        raise UserError("The held-out text is empty; bits per byte need some text.")
    return pieces


def model_bits_per_byte(model: Any, tokenizer: Any, pieces: Sequence[str]) -> float:
    """The same for a model in memory, which must be in eval mode, and pieces from `cut_pieces`."""
    import torch

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        start = 0
    nats = 0.0
    for piece in pieces:
        ids = [start, *tokenizer(piece, add_special_tokens=False)["input_ids"]]
        tokens = torch.tensor([ids], device=model.device)
        with torch.no_grad():
            logits = model(tokens).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
    return nats / math.log(2) / sum(len(piece.encode()) for piece in pieces)
