"""The cost of a step: tokens, operations, bytes of disk.

Operations of a token (N parameters outside embedding and head, V rows, d columns; arXiv 2412.21140 and the usual count of
two operations a parameter and pass):

| | forward | forward and backward |
|---|---|---|
| all parameters | 2N + 2Vd | 6N + 6Vd |
| embeddings, LoRA (the gradient still crosses the layers) | | 4N + 6Vd |
| head only | | 2N + 6Vd |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: N, V, d, whether the head is the embedding, bytes of a stored value."""

    layers: int
    rows: int
    dim: int
    tied: bool
    width: int

    def bytes(self, rows: int) -> int:
        """Of the stored model with so many rows."""
        return self.width * (self.layers + self.embedding(rows))

    def embedding(self, rows: int) -> int:
        """Values of embedding and head."""
        return rows * self.dim * (1 if self.tied else 2)

    def forward(self, rows: int) -> float:
        """Operations of reading or writing a token."""
        return 2.0 * self.layers + 2.0 * rows * self.dim

    def training(self, rows: int, what: str) -> float:
        """Operations of training on a token; `what` as in `PretrainSettings.train`."""
        factor = {"all": 6, "head": 4 if self.tied else 2}.get(what, 4)
        return float(factor * self.layers + 6 * rows * self.dim)


@dataclass(frozen=True)
class Price:
    """Of one step; None where it cannot be told."""

    tokens: float | None = None
    flop: float | None = None
    bytes: float | None = None


@dataclass
class Costs:
    """The sizes and texts that stages tell their costs from.

    Attributes:
        output: the folder of the study.
        base: the base model, folder or hub id.
        shape: the base model's sizes.
        rows: of the new vocabulary, padding included.
        notes: what was assumed; stages add to it.
        missing: what must be there before it can be run, or told better; stages add to it.
    """

    output: Path
    base: str
    shape: Shape
    rows: int
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def embedding_bytes(self) -> int:
        """Of the new embedding and head."""
        return self.shape.width * self.shape.embedding(self.rows)


def shape_of(source: str) -> Shape:
    """Return a model's sizes from its config.json; no weights are needed or read.

    Raises:
        DarumeruError: there is no such folder, or the hub does not give it.
        Exception: transformers does not know the architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lep.model.checkpoint import locate

    config = AutoConfig.from_pretrained(locate(source, weights=False))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is None or bool(config.get_text_config().tie_word_embeddings)
    rows, dim = (int(n) for n in embedding.shape)
    total = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    stored = getattr(config, "dtype", None) or torch.float32
    return Shape(
        total - rows * dim * (1 if tied else 2), rows, dim, tied, int(torch.empty(0, dtype=stored).element_size())
    )
