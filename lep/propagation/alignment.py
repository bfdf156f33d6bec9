"""Tokens that base, adapted and instruct model share, and rows that stay the instruct model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.errors import UserError
from lep.model.checkpoint import Checkpoint, gather_mixed
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEVER = -1e6
"""Score of a control token in a Unigram vocabulary: its text, where it is not to be read as the token, is cut into others."""


@dataclass(frozen=True)
class Alignment:
    """The tokens of base, adapted and instruct model that are the same.

    Attributes:
        kept: id in the result → id in the instruct model, for rows that are the instruct model's own.
        base_to_instruct: for each base id the instruct id of the same token, or -1.
        shared: n x 3 ids (base, adapted, instruct) of the tokens that all three have and that are not kept.
        spec: `tokenizer.json` of the result: the adapted tokenizer with the instruct model's added tokens.
        ids: instruct id → id in the result.
        size: tokens of the result (largest id plus one).
    """

    kept: dict[int, int]
    base_to_instruct: NDArray[np.int64]
    shared: NDArray[np.int64]
    spec: dict[str, Any]
    ids: dict[int, int]
    size: int


def align(models: Sequence[Checkpoint], vocabularies: Sequence[Vocabulary]) -> Alignment:
    """Match the tokens of base, adapted and instruct model, ordinary ones by bytes and added ones by text.

    An added token of the instruct model stays its own where the adapted tokenizer lacks it or the instruct model trained
    it, whether it is flagged as special or not (Qwen3's `<think>` is not); only runs of white space, which are ordinary
    text, are mapped like any other token.

    Raises:
        UserError: base and instruct, or base and adapted, share fewer than a tenth of the base's tokens.
    """
    base, adapted, instruct = vocabularies
    base_to_instruct = _match(base, instruct, models[0].embeddings.rows)
    base_to_adapted = _match(base, adapted, models[0].embeddings.rows)
    tokens = len(set(base.ids.values()))
    for other, found in ((instruct, base_to_instruct), (adapted, base_to_adapted)):
        common = int((found >= 0).sum())
        if common < tokens / 10:
            raise UserError(
                f"Only {common} of the base's {tokens} tokens are in {_name(other)}; these vocabularies do not belong "
                "together. Check which model is base, adapted and instruct."
            )
    ids = {int(inst): int(base_to_adapted[b]) for b, inst in enumerate(base_to_instruct) if inst >= 0}
    ids = {inst: new for inst, new in ids.items() if new >= 0}
    spec: dict[str, Any] = dict(adapted.spec)
    added = {entry["content"]: dict(entry) for entry in spec.get("added_tokens", [])}
    vocabulary: Any = spec["model"]["vocab"]
    vocabulary = dict(vocabulary) if isinstance(vocabulary, dict) else list(vocabulary)
    size = adapted.size
    kept: dict[int, int] = {}
    for index in sorted(instruct.added):
        entry = instruct.added[index]
        text = entry["content"]
        place = adapted.by_added_text.get(text, adapted.ids.get(text))
        if place is None:
            place, size = size, size + 1
            kept[place] = index
            # In the model's vocabulary too: loaders renumber added tokens that it lacks.
            if isinstance(vocabulary, dict):
                vocabulary[text] = place
            else:
                vocabulary.append([text, _NEVER])
        elif text.strip() and _row_differs(models[0], models[2], base, text, index):
            kept[place] = index
        added[text] = {**entry, "id": place}
        ids[index] = place
    spec["model"] = {**spec["model"], "vocab": vocabulary}
    spec["added_tokens"] = sorted(added.values(), key=lambda entry: int(entry["id"]))
    triples = [
        (b, int(base_to_adapted[b]), int(inst))
        for b, inst in enumerate(base_to_instruct)
        if inst >= 0 and base_to_adapted[b] >= 0 and int(base_to_adapted[b]) not in kept
    ]
    return Alignment(kept, base_to_instruct, np.array(triples, dtype=np.int64).reshape(-1, 3), spec, ids, size)


def _match(source: Vocabulary, target: Vocabulary, rows: int) -> NDArray[np.int64]:
    found = np.full(rows, -1, dtype=np.int64)
    for index in source.strings:
        other = target.same_token(source, index)
        if other is not None:
            found[index] = other
    return found


def _row_differs(base: Checkpoint, instruct: Checkpoint, vocabulary: Vocabulary, text: str, index: int) -> bool:
    """Return whether the instruct model trained this token: its row is not the base's, bit for bit."""
    import torch

    own = vocabulary.by_added_text.get(text, vocabulary.ids.get(text))
    if own is None or own >= base.embeddings.rows or index >= instruct.embeddings.rows:
        return True
    pairs = [(base.embeddings.input, instruct.embeddings.input), (base.embeddings.head, instruct.embeddings.head)]
    return any(
        left is not None
        and right is not None
        and not torch.equal(gather_mixed(left, np.array([own])).float(), gather_mixed(right, np.array([index])).float())
        for left, right in pairs
    )


def _name(vocabulary: Vocabulary) -> str:
    return vocabulary.folder.name if vocabulary.folder is not None else "the other tokenizer"
