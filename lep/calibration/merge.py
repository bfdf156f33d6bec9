"""A trained adapter merged into a plain model folder, compared before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError, UserError
from darumeru.weights import StoredTensor
from lep.calibration.lora import add_lora, check_tie, is_tied, load_adapter, trained_parameters
from lep.model.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from lep.model.embeddings import match_tensor
from lep.model.loading import load_exact
from lep.model.rounding import generator_for, round_unbiased
from lep.model.shards import NewTensor, torch_dtype

if TYPE_CHECKING:
    import torch

    from lep.calibration.chat import Example
    from lep.calibration.recipe import Recipe

LIMIT = 1e-3
"""The largest difference of logits, in float32, that merging and writing may make."""

_ROWS = 8192
"""Of a tensor that are worked on at a time."""
_SAMPLES = 4
_LOSS_SAMPLES = 16
_SAMPLE_TOKENS = 256


@dataclass(frozen=True)
class Comparison:
    """The largest differences of logits on the sample prompts, all computed in float32."""

    merging: float
    """Between the model with its adapter and the merged one."""
    writing: float
    """Between the merged model, rounded as it is stored, and the folder read back."""
    rounding: float
    """The change by rounding to the stored type; nothing where that is float32."""


@dataclass(frozen=True)
class SampleLoss:
    """The mean loss of the assistant's tokens in the prefixes of some examples, the same before and after."""

    examples: int
    before: float | None
    after: float | None
    """Of the written model; None where no example begins with anything to learn."""


def stored_tensors(source: Checkpoint, wrapped: Any) -> dict[str, StoredTensor]:
    """Return the place in the folder of each parameter that training changes, by its name in the model.

    Asked before the training, so that a model that cannot be written is found then.

    Raises:
        UserError: a parameter is not among the stored tensors.
    """
    found: dict[str, StoredTensor] = {}
    for name, kind in trained_parameters(wrapped):
        tensor: StoredTensor | None
        if kind == "lora":
            tensor = match_tensor(name, source.tensors)
        elif name.endswith(".bias"):
            tensor = source.embeddings.bias
        else:
            tensor = source.embeddings.input if kind == "embedding" else source.embeddings.head
        if tensor is None:
            raise UserError(
                f"The tensor {name} of {source.architecture} is not stored under that name in {source.folder}; "
                "save the model with this version of transformers (from_pretrained, save_pretrained) first."
            )
        found[name] = tensor
    return found


def merge(
    source: Checkpoint,
    recipe: Recipe,
    adapter: Path,
    place: Path,
    tensors: Mapping[str, StoredTensor],
    samples: Sequence[Example],
) -> tuple[Comparison, SampleLoss]:
    """Write the model `source` with an adapter merged into it; everything else is copied bit by bit.

    The merge is computed in float32 and rounded once, to the type that each tensor is stored in, without a bias (see
    `lep.model.rounding`), one tensor at a time: of the model, only what was trained is in memory (see `lep.model.loading`).

    Args:
        source: the model that the adapter was trained on.
        recipe: how it was trained.
        adapter: a folder in PEFT's format.
        place: an existing empty folder.
        tensors: where the changed parameters are stored, see `stored_tensors`.
        samples: examples to compare on; the prefixes of the first few are taken.

    Raises:
        DarumeruError: the merged model, or what was written, says something else than the model with its adapter.
    """
    inputs = [_beginning(example) for example in samples[:_SAMPLES]]
    asked = [example for example in samples if example.trained[1:_SAMPLE_TOKENS].any()][:_LOSS_SAMPLES]
    base = load_exact(source)
    tied = is_tied(base)
    wrapped = add_lora(base, recipe).eval()
    loss = _loss(wrapped, asked)  # an adapter that is not trained changes nothing
    load_adapter(wrapped, adapter)
    check_tie(wrapped, tied)
    trained = _logits(wrapped, inputs)
    merged = {name: partial(_merged, wrapped, name, kind) for name, kind in trained_parameters(wrapped)}
    after = _logits(load_exact(source, merged), inputs)
    merging = _difference(trained, after, "merging the adapter")
    if not merging <= LIMIT:
        raise DarumeruError(
            f"Merging changed the model: logits differ by up to {merging:.3g} in float32, {LIMIT:g} is allowed. "
            "The adapter is kept; nothing was written."
        )
    rows = {
        name: partial(_rounded, merged[name], torch_dtype(tensor.dtype), name, recipe.seed)
        for name, tensor in tensors.items()
    }
    rounded = _logits(load_exact(source, {name: partial(_whole, blocks) for name, blocks in rows.items()}), inputs)
    rounding = _difference(after, rounded, "rounding")
    replace = {tensor.name: NewTensor(tensor.dtype, tensor.shape, rows[name]) for name, tensor in tensors.items()}
    write_checkpoint(source, place, replace=replace, config=source.config)
    del replace, rows, merged, wrapped, base
    written = load_exact(open_checkpoint(place))
    writing = _difference(rounded, _logits(written, inputs), "writing")
    if not writing <= LIMIT:
        raise DarumeruError(
            f"The written folder is another model: logits differ by up to {writing:.3g}, {LIMIT:g} is allowed."
        )
    return Comparison(merging, writing, rounding), SampleLoss(len(asked), loss, _loss(written, asked))


def _merged(wrapped: Any, name: str, kind: str) -> torch.Tensor:
    """Return a weight of the merged model in float32: LoRA's change added, or what was trained in its place."""
    path, _, inner = name.rpartition(".")
    module = wrapped.get_base_model().get_submodule(path)
    (adapter,) = module.active_adapters
    if kind != "lora":
        value: torch.Tensor = module.modules_to_save[adapter].get_parameter(inner).detach()
        return value
    changed: torch.Tensor = module.get_base_layer().weight.detach().float() + module.get_delta_weight(adapter).detach()
    return changed


def _rounded(value: Callable[[], torch.Tensor], dtype: torch.dtype, name: str, seed: int) -> Iterator[torch.Tensor]:
    """Yield a weight's rows as they are stored; the same ones at each call."""
    draws, whole = generator_for(name, seed), value()
    for start in range(0, len(whole), _ROWS):
        yield round_unbiased(whole[start : start + _ROWS], dtype, draws)


def _whole(blocks: Callable[[], Iterator[torch.Tensor]]) -> torch.Tensor:
    import torch

    return torch.cat([rows.float() for rows in blocks()])


def _logits(model: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the logits of each input, tokens x vocabulary: one pass, since each reads all weights from their files."""
    import torch

    lengths = [len(ids) for ids in inputs]
    padded = torch.nn.utils.rnn.pad_sequence(list(inputs), batch_first=True)  # no token sees what follows it
    with torch.no_grad():
        logits = model(input_ids=padded.to(model.device), use_cache=False).logits.float().cpu()
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]


def _beginning(example: Example) -> torch.Tensor:
    import torch

    return torch.from_numpy(example.ids[:_SAMPLE_TOKENS].astype("int64"))


def _loss(model: Any, examples: Sequence[Example]) -> float | None:
    import torch

    total, count = 0.0, 0
    for start in range(0, len(examples), _SAMPLES):
        part = examples[start : start + _SAMPLES]
        for example, logits in zip(part, _logits(model, [_beginning(example) for example in part]), strict=True):
            trained = torch.from_numpy(example.trained[1:_SAMPLE_TOKENS])
            targets = _beginning(example)[1:][trained]
            total += float(torch.nn.functional.cross_entropy(logits[:-1][trained], targets, reduction="sum"))
            count += int(trained.sum())
    return total / count if count else None


def _difference(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], what: str) -> float:
    largest = max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))
    if largest != largest:  # NaN
        raise DarumeruError(
            f"The model's logits are no numbers ({what}): the training diverged. Use a lower --learning-rate."
        )
    return largest
