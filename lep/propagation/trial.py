"""Bits per byte of what propagation would write, tried in memory: candidates differ in a few tensors, and nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.files import write_json
from lep.measure.bits import cut_pieces, model_bits_per_byte
from lep.model.embeddings import parameters_of
from lep.model.loading import load_model
from lep.model.shards import NewTensor, torch_dtype
from lep.propagation.models import Models
from lep.propagation.result import translated, write_tokenizer

if TYPE_CHECKING:
    import torch


class Trial:
    """The instruct model with the result's tokenizer, opened once; a candidate's tensors take the place of its own.

    Its weights stay in their files (see `lep.model.loading`); in memory are those that a candidate changes.
    """

    def __init__(self, models: Models, texts: Sequence[str]) -> None:
        """Open the model.

        Args:
            models: the three models.
            texts: documents to measure on.

        Raises:
            UserError: the texts are empty, or transformers cannot load the instruct model.
        """
        from transformers import AutoTokenizer

        self._pieces = cut_pieces(texts)
        instruct = models.instruct
        with tempfile.TemporaryDirectory() as name:
            write_tokenizer(models, Path(name))
            write_json(Path(name) / "config.json", translated(models, instruct.config))
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._model = load_model(instruct.folder)
        found = instruct.embeddings
        source, head = self._model.get_input_embeddings(), self._model.get_output_embeddings()
        of_tokens = ((found.input, source.weight), (found.head, head.weight), (found.bias, getattr(head, "bias", None)))
        self._places = {
            name: self._model.get_parameter(place)
            for name, place in parameters_of(self._model, instruct.tensors).items()
        } | {stored.name: parameter for stored, parameter in of_tokens if stored is not None}

    def put(self, tensors: Mapping[str, NewTensor]) -> None:
        """Put tensors in the place of the model's own, rounded as they would be stored.

        Raises:
            UserError: the model in memory keeps one of them in another form.
        """
        for name, tensor in tensors.items():
            if name not in self._places:
                raise UserError(
                    f"The adaptation trained {name}, which transformers loads in another form than it is stored in, so that "
                    "auto cannot try it. Name the --method."
                )
            parameter = self._places[name]
            parameter.data = _made(tensor).to(parameter.dtype)

    def bits_per_byte(self) -> float:
        """Return bits per byte of the model as it is now, on the texts."""
        return model_bits_per_byte(self._model, self._tokenizer, self._pieces)


def _made(tensor: NewTensor) -> torch.Tensor:
    import torch

    result = torch.empty(tensor.shape, dtype=torch_dtype(tensor.dtype))
    start = 0
    for block in tensor.blocks():
        result[start : start + len(block)] = block.to(result.dtype)
        start += len(block)
    return result
