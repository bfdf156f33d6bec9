"""New rows that learn together: a linear map of what a token is made of, shared by all new tokens and trained with their rows.

A new token that the corpus has five times teaches its own row little, yet what it teaches holds for other tokens made in the
same way. So each new row is ``E(t) = R(t) + x(t) M``: R is the row that is trained as ever; x(t), F values, describes the token
by its pieces in the vocabulary before; M, F x d, begins at zero and is trained with a learning rate of its own. Since
``dL/dM = Xᵀ dL/dE``, the model knows nothing of it: the optimizer moves M by ΔM and adds ``X ΔM`` to the rows, and the result has
rows like any other. (Hypernetworks that predict rows, as in arXiv 2405.07883, are trained beforehand on many tokenizers.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from darumeru.errors import UserError
from lep.model.checkpoint import gather_mixed, open_checkpoint
from lep.model.sharding import own_rows, summed
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from darumeru.weights import StoredTensor
    from lep.pretraining.trainable import Trainable

_MOST_PIECES = 8
_HEAD = 50.0
"""Added to a token's place before the logarithm is taken: the first few are not so much more frequent than the next."""
_CONSTANT = 8.0
"""Length of the features that are no rows (how many pieces, how frequent), in standard deviations of a row's values."""


@dataclass(frozen=True)
class SharedMap:
    """What a matrix's new rows have in common.

    Attributes:
        matrix: the trained parameter: the new rows, or a whole matrix.
        index: places of the new tokens' rows in it, n.
        features: X, n x F, float32.
        change: M since the last step, F x d: zero but for the moment of a step.
    """

    matrix: nn.Parameter
    index: torch.Tensor
    features: torch.Tensor
    change: nn.Parameter

    @classmethod
    def of(cls, matrix: nn.Parameter, index: torch.Tensor, features: torch.Tensor) -> SharedMap:
        """Return the map for a matrix."""
        features = features.to(matrix.device)
        change = nn.Parameter(torch.zeros(features.shape[1], matrix.shape[1], device=matrix.device))
        return cls(matrix, index.to(matrix.device), features, change)

    def before_step(self) -> None:
        """Give the map its gradient, from that of the rows."""
        if self.matrix.grad is not None:
            gradient, places, chosen = own_rows(self.matrix.grad, self.index)
            part = self.features[chosen].T @ gradient[places].float()
            self.change.grad = summed(part, self.matrix)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the rows by what the map has moved."""
        values, places, chosen = own_rows(self.matrix, self.index)
        values[places] += (self.features[chosen] @ self.change).to(values.dtype)
        self.change.zero_()


def shared_maps(trainable: Trainable, original: Path, tokenizer: Path, new_ids: Sequence[int]) -> list[SharedMap]:
    """Return a map for each trained matrix of tokens: the embedding and, where it is another, the head.

    Args:
        trainable: a model in the new vocabulary.
        original: folder of the model before.
        tokenizer: folder with the new tokenizer.
        new_ids: ids of the new tokens.

    Raises:
        UserError: no matrix is trained, or the vocabulary before cannot write some new token.
    """
    ids = sorted(new_ids)
    pieces = pieces_of(original, tokenizer, ids)
    known = open_checkpoint(original).embeddings
    index = torch.arange(len(ids)) if trainable.rows is not None else torch.tensor(ids)
    found = []
    for names, stored in ((trainable.embedding, known.input), (trainable.head, known.head or known.input)):
        for name in names:
            if trainable.parameters[name].dim() == 2:
                found.append(SharedMap.of(trainable.parameters[name], index, features_of(pieces, stored)))
    if not found:
        raise UserError(f"--shared-learning-rate moves rows of tokens, and --train {trainable.what} trains none.")
    return found


def pieces_of(original: Path, tokenizer: Path, new_ids: Sequence[int]) -> list[list[int]]:
    """Return the tokens of the vocabulary before that each new token's text is segmented into, none of them empty.

    Args:
        original: folder of the model before.
        tokenizer: folder with the new tokenizer.
        new_ids: ids of the n new tokens.

    Raises:
        UserError: the vocabulary before cannot write some new token.
    """
    old, new = Vocabulary.load(original), Vocabulary.load(tokenizer)
    pieces = old.pieces([new.bytes_of(index) for index in new_ids])
    for index, ids in zip(new_ids, pieces, strict=True):
        if not ids:
            raise UserError(
                f"{original.name} has no tokens for {new.strings[index]!r}, so --shared-learning-rate cannot describe it by "
                "them. Leave that option out."
            )
    return pieces


def features_of(pieces: Sequence[Sequence[int]], stored: StoredTensor) -> torch.Tensor:
    """Return X for new tokens: rows of the first and the last piece and the mean of all, how many pieces, how frequent.

    A vocabulary is made by frequency, so that the logarithm of a token's place among the new ones tells how frequent it is.

    Args:
        pieces: of each of the n new tokens, in the order of their ids.
        stored: the matrix in the vocabulary before, old rows x d.

    Returns:
        n x (3 d + 9), float32.
    """
    used = np.unique(np.concatenate(pieces))
    rows = gather_mixed(stored, used).float()
    places = [torch.from_numpy(np.searchsorted(used, ids)) for ids in pieces]
    first, last = (rows[torch.stack([place[end] for place in places])] for end in (0, -1))
    mean = torch.stack([rows[place].mean(0) for place in places])
    scale = _CONSTANT * torch.cat([first, last, mean]).std()
    count = torch.tensor([min(len(ids), _MOST_PIECES) for ids in pieces])
    rank = torch.log(torch.arange(len(pieces)) + _HEAD)
    frequency = (rank.mean() - rank) / rank.std().clamp(min=1e-6)
    return torch.cat(
        [first, last, mean, scale * nn.functional.one_hot(count - 1, _MOST_PIECES).float(), scale * frequency[:, None]],
        dim=1,
    )
