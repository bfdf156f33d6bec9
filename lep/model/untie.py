"""A model whose head is the embedding, written anew with a head of its own."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lep.model.checkpoint import Checkpoint, open_checkpoint, read_blocks, write_checkpoint
from lep.model.embeddings import head_name
from lep.model.folders import new_folder
from lep.model.shards import NewTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from darumeru.weights import StoredTensor


def untied(source: Checkpoint, folder: Path) -> Checkpoint:
    """Return the model with a head of its own, a copy of the embedding: written to `folder`, unless it is there already.

    It computes what the tied one does. Other shards are hard links.

    Args:
        source: a tied model.
        folder: appears whole or not at all.

    Raises:
        UserError: transformers does not know the model.
    """
    if folder.is_dir():
        return open_checkpoint(folder)
    config = copy.deepcopy(source.config)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            part["tie_word_embeddings"] = False
    rows = source.embeddings.input
    head = NewTensor(rows.dtype, rows.shape, partial(_rows, rows))
    with new_folder(folder) as place:
        write_checkpoint(source, place, replace={}, config=config, link=True, add={head_name(source.folder): head})
    return open_checkpoint(folder)


def _rows(tensor: StoredTensor) -> Iterator[torch.Tensor]:
    return (rows for _, rows in read_blocks(tensor))
