"""Bits per byte of a model folder or of a model in memory, on texts cut as `darumeru.scoring.bits` says."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    nats = 0.0
    for piece in cut:
        ids = [start, *tokenizer(piece, add_special_tokens=False)["input_ids"]]
        tokens = torch.tensor([ids], device=model.device)
        with torch.no_grad():
            logits = model(tokens).logits[0, :-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
    return nats / math.log(2) / sum(len(piece.encode()) for piece in cut)
