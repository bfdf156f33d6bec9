"""The cost of a step: tokens, operations, bytes of disk and of memory (`lep.pipeline.memory`).

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

from darumeru.errors import UserError


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        layers: N, parameters outside embedding and head.
        rows: V.
        dim: d.
        tied: the head is the embedding.
        width: bytes of a stored value.
        blocks: transformer layers.
        wide: the width of their MLPs.
        linear: inputs and outputs of the linear maps in them, summed: LoRA has rank times as many values.
    """

    layers: int
    rows: int
    dim: int
    tied: bool
    width: int
    blocks: int = 0
    wide: int = 0
    linear: int = 0

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
class Instead:
    """Another setting, as `--set` takes it, and what the step needs with it: bytes of memory, or of disk."""

    change: str
    memory: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Price:
    """Of one step; None where it cannot be told.

    Attributes:
        tokens: that are read and written.
        flop: operations.
        bytes: of disk.
        memory: bytes of memory, estimated; of the GPU's, where a GPU is planned for and `trains`.
        trains: on the GPU, where there is one.
        instead: what would need less.
    """

    tokens: float | None = None
    flop: float | None = None
    bytes: float | None = None
    memory: float | None = None
    trains: bool = False
    instead: tuple[Instead, ...] = ()


@dataclass
class Costs:
    """The sizes and texts that stages tell their costs from.

    Attributes:
        output: the folder of the study.
        base: the base model, folder or hub id.
        shape: the base model's sizes.
        rows: of the new vocabulary, padding included.
        new: tokens that the base model's vocabulary lacks.
        gpu: the training is planned for a GPU.
        notes: what was assumed; stages add to it.
        missing: what must be there before it can be run, or told better; stages add to it.
    """

    output: Path
    base: str
    shape: Shape
    rows: int
    new: int = 0
    gpu: bool = False
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
    from transformers import AutoConfig

    from darumeru.engines.hf.loading import model_class
    from lep.model.checkpoint import locate

    config = AutoConfig.from_pretrained(locate(source, weights=False))
    text = config.get_text_config()
    with torch.device("meta"):
        model: Any = model_class(config).from_config(config)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    tied = head is None or head.weight is embedding or bool(config.tie_word_embeddings)
    rows, dim = (int(n) for n in embedding.shape)
    matrices = {id(m): m for m in (embedding, *([] if head is None else [head.weight]))}
    stored = getattr(config, "dtype", None) or text.dtype or torch.float32
    return Shape(
        sum(p.numel() for p in model.parameters()) - sum(m.numel() for m in matrices.values()),
        rows,
        dim,
        tied,
        int(torch.empty(0, dtype=stored).element_size()),
        blocks=int(text.num_hidden_layers),
        wide=int(getattr(text, "intermediate_size", None) or 4 * dim),
        linear=_linear(model),
    )


def _linear(model: Any) -> int:
    from lep.model.layers import linear_layers

    try:
        return sum(sum(model.get_submodule(name).weight.shape) for name in linear_layers(model, "all"))
    except UserError:  # layers of its own kind, which LoRA does not find either
        return 0
