"""The memory that a step needs: an estimate from a model's sizes.

Bytes, with N parameters outside embedding and head, E values of embedding and head, c bytes of a computed value:

* training: frozen weights c each (1 in 8 bits, 0.55 in 4 bits with the quantized constants), trained ones 16 (the value, its
  gradient and two moments in float32), and for each token of a pass and each layer what the backward pass goes back to: two
  norms' inputs in float32, queries, keys, values and their sum (4 d c), three values as wide as the MLP; with LoRA also what
  its matrices multiply. With gradient checkpointing, one value a layer, and one layer in full;
* a map: rows of shared tokens in float64, and six d x d matrices;
* trying candidates, merging: the model in its stored type. Its pages are those of its files, which the system can take back
  and read again, more slowly.

`benchmarks/memory.py` holds them against what was measured.
"""

from __future__ import annotations

from lep.pipeline.price import Shape

PROCESS = 0.8e9
"""Python with torch, transformers and a trainer, before any weight."""
_MASTER = 16.0
_BITS = {"none": None, "8bit": 1.0, "4bit": 0.55}
_LOGITS = 1 << 24
"""That are computed at a time on a CPU, with their gradients; at least those of 64 positions."""
_COUPLED = 16_384
_BLOCK = 8192


def training(
    shape: Shape,
    rows: int,
    what: str,
    *,
    new: int,
    tokens: int,
    width: int,
    quantize: str = "none",
    checkpointing: bool = False,
    rank: int = 0,
) -> float:
    """Return the bytes that training takes.

    Args:
        shape: the model.
        rows: of its embedding.
        what: as in `PretrainSettings.train`, one part.
        new: rows that are new.
        tokens: of one pass.
        width: bytes of a computed value, 2 or 4.
        quantize: what frozen layers are kept in.
        checkpointing: layers are computed again in the backward pass.
        rank: of LoRA, where it is trained.
    """
    parts = what.split("+")
    matrices = shape.embedding(rows)
    trained = trained_values(shape, rows, what, new=new, rank=rank)
    whole = {"embeddings", "all"} & {*parts} or (shape.tied and "head" in parts)
    inside = shape.layers if "all" in parts else 0
    weights = (_BITS[quantize] or width) * (shape.layers - inside) + (0 if whole else width * matrices)
    return (
        PROCESS
        + weights
        + _MASTER * trained
        + passes(shape, tokens, width, crossing="head" not in parts, checkpointing=checkpointing, lora="lora" in parts)
        + 8.0 * max(_LOGITS, 64 * rows)
    )


def trained_values(shape: Shape, rows: int, what: str, *, new: int, rank: int) -> float:
    """Return how many values are trained; arguments as for `training`."""
    parts = {*what.split("+")}
    matrices = float(shape.embedding(rows))
    return (
        (matrices if parts & {"embeddings", "all"} else 0.0)
        + (matrices if shape.tied else matrices / 2) * ("head" in parts)
        + shape.embedding(new) * ("new-rows" in parts)
        + shape.layers * ("all" in parts)
        + 2 * shape.layers / max(shape.blocks, 1) * ("ends" in parts)
        + rank * shape.linear * ("lora" in parts)
    )


def passes(shape: Shape, tokens: int, width: int, *, crossing: bool, checkpointing: bool, lora: bool) -> float:
    """Return the bytes of what the backward pass goes back to; `crossing`: it goes through the layers."""
    one = 8.0 * shape.dim + 4 * shape.dim * width + 3 * shape.wide * width
    one += (2 * shape.dim + shape.wide) * width if lora else 0
    if not crossing:
        return tokens * one
    return tokens * (shape.blocks * shape.dim * width + one if checkpointing else shape.blocks * one)


def chats(shape: Shape, rows: int, *, whole: bool, tokens: int, width: int, checkpointing: bool, rank: int) -> float:
    """Return the bytes of training on chats: LoRA, embedding and head whole or not, and the logits of a row of `tokens`."""
    matrices = shape.embedding(rows)
    return (
        PROCESS
        + width * (shape.layers + matrices)
        + _MASTER * (rank * shape.linear + (matrices if whole else 0))
        + passes(shape, tokens, width, crossing=True, checkpointing=checkpointing, lora=True)
        + 12.0 * tokens * rows
    )


def mapping(shape: Shape, rows: int) -> float:
    """Return the bytes of fitting a map and writing the model."""
    return PROCESS + 24.0 * min(_COUPLED, rows) * shape.dim + 48.0 * shape.dim**2


def trying(shape: Shape, rows: int) -> float:
    """Return the bytes of trying candidates: maps, and the model with what changes in it in its place."""
    return mapping(shape, rows) + shape.bytes(rows)


def rows_of(shape: Shape, rows: int, *, similar: bool) -> float:
    """Return the bytes of making new rows; `similar`: old and new rows are compared with each other."""
    return PROCESS + 24.0 * _BLOCK * shape.dim + (12.0 * rows * shape.dim if similar else 0)


def reading(shape: Shape, rows: int, width: int) -> float:
    """Return the bytes of a model that answers or reads texts, without its cache."""
    return PROCESS + float(width) * (shape.layers + shape.embedding(rows))
