"""The vocabulary in a model folder: input embedding, output head and its bias among the tensors of a folder.

The names come from the architecture itself, built on the meta device (no memory, no weights), and are then looked up in
the files, whose names may carry another prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.shards import read_rows

# Names that per-token matrices go by, so that another layer whose size happens to be |V| is not taken for one.
_PER_TOKEN = re.compile(r"embed|wte|head|vocab|output\.weight")
_BLOCK = 8192


@dataclass(frozen=True)
class Embeddings:
    """The stored tensors with a row for each token.

    Attributes:
        input: the input embedding, rows x dim.
        head: the output head, rows x dim, or None where it is tied to `input`.
        bias: the head's bias, rows, or None.
        extra: a stored copy of a tied head (left out when the model is written again), or None.
    """

    input: StoredTensor
    head: StoredTensor | None
    bias: StoredTensor | None
    extra: StoredTensor | None = None

    @property
    def tied(self) -> bool:
        """Return whether input embedding and head are one matrix."""
        return self.head is None

    @property
    def rows(self) -> int:
        """Rows of the embedding, padding included."""
        return self.input.shape[0]

    @property
    def dim(self) -> int:
        """Length of a row."""
        return self.input.shape[1]


def find_embeddings(folder: Path, tensors: Mapping[str, StoredTensor]) -> tuple[str, Embeddings]:
    """Find a model's architecture and where its embeddings lie among the stored tensors.

    Raises:
        UserError: an unknown architecture, a matrix that is missing, or further tensors with a row for each token.
    """
    names = _meta_names(folder)
    source = match_tensor(names.input, tensors)
    if source is None or len(source.shape) != 2:
        raise UserError(
            f"The input embedding {names.input} of {names.architecture} is not among the tensors of {folder}. "
            "Is this the whole model, saved by transformers?"
        )
    rows = source.shape[0]
    head = match_tensor(names.head, tensors)
    if head is None or head == source or head.shape != source.shape:
        # Heads go by several names (embed_out, output); the only other matrix of this shape is it.
        others = [t for t in tensors.values() if t.shape == source.shape and t != source and _PER_TOKEN.search(t.name)]
        head = others[0] if len(others) == 1 else None
    bias = None
    if head is not None or names.tied:
        bias = match_tensor(names.bias, tensors) if names.bias is not None else None
    known = {source.name, *(t.name for t in (head, bias) if t is not None)}
    strange = [t.name for t in tensors.values() if t.shape[:1] == (rows,) and _PER_TOKEN.search(t.name)]
    strange = [name for name in strange if name not in known]
    if strange:
        raise UserError(
            f"{folder} holds tensors with one row for each token besides embedding and head "
            f"({', '.join(strange[:3])}); such an architecture ({names.architecture}) is not supported."
        )
    if not names.tied and head is None:
        raise UserError(f"The output head {names.head} of {names.architecture} is not among the tensors of {folder}.")
    if names.tied and head is not None:
        if not _equal(source, head):
            raise UserError(
                f"config.json of {folder} ties head and embedding, but {head.name} differs from {source.name}. "
                'Set "tie_word_embeddings": false there.'
            )
        return names.architecture, Embeddings(source, None, bias, extra=head)
    return names.architecture, Embeddings(source, head, bias)


def head_name(folder: Path) -> str:
    """Return the name that a model's architecture gives its output head, whether it has one of its own or not.

    Raises:
        UserError: transformers does not know the model.
    """
    return _meta_names(folder).head


@dataclass(frozen=True)
class _Names:
    architecture: str
    input: str
    head: str
    bias: str | None
    tied: bool


def _meta_names(folder: Path) -> _Names:
    import torch
    import transformers

    from darumeru.engines.hf.loading import model_class

    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"transformers does not know the model in {folder}: {reason}") from error
    wanted = (getattr(config, "architectures", None) or [""])[0]
    cls = getattr(transformers, str(wanted), None)
    # Only classes that transformers itself defines and that can be built from a configuration alone.
    known = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)
    try:
        with torch.device("meta"):
            model: Any = cls(config) if known and cls else model_class(config).from_config(config)
    except Exception as error:
        raise UserError(
            f"{wanted or config.model_type} in {folder} cannot be built as a causal language model: {error}"
        ) from error
    source = model.get_input_embeddings()
    head = model.get_output_embeddings()
    if source is None or head is None:
        raise UserError(
            f"{type(model).__name__} in {folder} has no input embedding and head of its own. "
            "Name a causal language model."
        )
    modules = {id(module): name for name, module in model.named_modules()}
    tied = source.weight is head.weight or bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    bias = f"{modules[id(head)]}.bias" if getattr(head, "bias", None) is not None else None
    return _Names(type(model).__name__, f"{modules[id(source)]}.weight", f"{modules[id(head)]}.weight", bias, tied)


def match_tensor(name: str, tensors: Mapping[str, StoredTensor]) -> StoredTensor | None:
    """The stored tensor of that name, else the one that shares its longest dotted ending of two or more parts.

    Where several do (layers of a language and of a vision model), the one with the most parts in common, if it is one.
    """
    if name in tensors:
        return tensors[name]
    parts = name.split(".")
    for skip in range(max(1, len(parts) - 1)):
        ending = ".".join(parts[skip:])
        found = [t for key, t in tensors.items() if key == ending or key.endswith("." + ending)]
        if found:
            common = [len(set(parts) & set(t.name.split("."))) for t in found]
            best = [t for t, count in zip(found, common, strict=True) if count == max(common)]
            return best[0] if len(best) == 1 else None
    return None


def parameters_of(model: Any, tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Return the name in a model of each stored tensor that it holds in the same form, by its stored name."""
    found = {}
    for name, parameter in model.named_parameters():
        stored = match_tensor(name, tensors)
        if stored is not None and stored.shape == tuple(parameter.shape):
            found[stored.name] = name
    return found


def _equal(left: StoredTensor, right: StoredTensor) -> bool:
    import torch

    rows = left.shape[0]
    bounds = [(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]
    return all(torch.equal(read_rows(left, *bound), read_rows(right, *bound)) for bound in bounds)
