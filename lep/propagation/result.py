"""The model that propagation writes: the instruct model, its embedding and head made from the adapted model's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from darumeru.files import read_json
from darumeru.weights import StoredTensor
from lep.model.checkpoint import (
    config_rows,
    config_with,
    gather_mixed,
    mean_row,
    read_blocks,
    write_checkpoint,
)
from lep.model.shards import NewTensor
from lep.propagation.matrices import Matrices, finite_rows
from lep.propagation.method import Change
from lep.propagation.models import Models
from lep.tokenizer.folder import read_config, save_tokenizer

if TYPE_CHECKING:
    import torch

_BLOCK = 2048
_LOW_CORRELATION = 0.5


def write_model(
    models: Models,
    fits: Mapping[str, Change | None],
    place: Path,
    *,
    layers: Mapping[str, NewTensor],
    link: bool,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Write the model folder and return its measures.

    Args:
        models: the three models.
        fits: how each matrix changes, by its name; None for the identity.
        place: an empty folder.
        layers: other tensors than the instruct model's own, by name.
        link: hard-link unchanged shards.
        warn: receives one sentence for anything doubtful.
    """
    instruct = models.instruct
    measures: dict[str, Any] = {
        "tokens": models.alignment.size,
        "rows": _rows(models),
        "shared_tokens": len(models.alignment.shared),
        "instruct_rows_kept": len(models.alignment.kept),
    }
    for matrices in models.matrices():
        fit, correlation = fits[matrices.name], _correlation(matrices)
        if correlation < _LOW_CORRELATION:
            warn(
                f"The {matrices.name} rows of base and instruct model have a mean correlation of {correlation:.2f} "
                "(variants of one model are near 1): is this the base that the instruct model was made from?"
            )
        measures[matrices.name] = {
            "correlation": correlation,
            **(fit.summary() if fit is not None else {"map": "identity"}),
        }
    with tempfile.TemporaryDirectory(dir=place) as name:
        tokenizer = Path(name)
        measures["tokenizer_class"] = write_tokenizer(models, tokenizer)
        generation = instruct.folder / "generation_config.json"
        write_checkpoint(
            instruct,
            place,
            replace={**layers, **token_tensors(models, fits)},
            config=translated(models, instruct.config),
            tokenizer=tokenizer,
            generation_config=translated(models, read_json(generation)) if generation.is_file() else None,
            link=link,
        )
    return measures


def token_tensors(models: Models, fits: Mapping[str, Change | None]) -> dict[str, NewTensor]:
    """Return the tensors that have a row for each token, by their names in the instruct model; see `write_model`."""
    rows, found = _rows(models), {}
    for matrices in models.matrices():
        tensor = matrices.instruct
        made = _new_rows(models, matrices, fits[matrices.name], rows)
        found[tensor.name] = NewTensor(tensor.dtype, (rows, tensor.shape[1]), made)
    stored = models.instruct.embeddings.bias
    if stored is not None:
        bias = _bias(models, rows)
        found[stored.name] = NewTensor(stored.dtype, (rows,), lambda: [bias])
    return found


def write_tokenizer(models: Models, place: Path) -> str:
    """Write the result's tokenizer to a folder; returns its class."""
    instruct, adapted = models.instruct.folder, read_config(models.adapted.folder)
    return save_tokenizer(
        models.alignment.spec,
        instruct,
        place,
        model_config=instruct / "config.json",
        config={key: adapted[key] for key in ("tokenizer_class",) if key in adapted},
    )


def translated(models: Models, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of the instruct model (of the model, or of generation) for the new vocabulary."""
    return config_with(config, old_rows=config_rows(models.instruct), rows=_rows(models), ids=models.alignment.ids)


def _rows(models: Models) -> int:
    """Rows of the result: those of the adapted model, or more (a multiple of 64) where tokens are added."""
    adapted = models.adapted.embeddings.rows
    return adapted if models.alignment.size <= adapted else -(-models.alignment.size // 64) * 64


def _new_rows(
    models: Models, matrices: Matrices, change: Change | None, rows: int
) -> Callable[[], Iterable[torch.Tensor]]:
    """Blocks of the result: trained rows, changed; the instruct model's own rows where they are kept."""
    import torch

    trained, own = matrices.adapted, matrices.instruct
    size = trained.shape[0]  # its padding rows too
    own_size = models.vocabularies[2].size
    # As in `lep.tokenizer.transfer.apply_rows`: 65,536 times finer than what 16-bit rows are rounded to.
    kind = torch.float32 if own.dtype in ("BF16", "F16") else torch.float64
    kept = dict(models.alignment.kept)
    padding = range(models.alignment.size, rows)
    kept |= {index: index for index in padding if own_size <= index < own.shape[0]}

    def blocks() -> Iterator[torch.Tensor]:
        filler: torch.Tensor | None = None
        for start in range(0, rows, _BLOCK):
            stop = min(start + _BLOCK, rows)
            result = torch.zeros(stop - start, trained.shape[1], dtype=kind)
            last = min(stop, size)
            if last > start:
                block = torch.from_numpy(finite_rows(trained, np.arange(start, last))).to(kind)
                result[: last - start] = block if change is None else change.apply(block, start)
            for index in range(max(start, size), stop):
                if index not in kept:
                    if filler is None:
                        mean = torch.from_numpy(mean_row(trained, models.vocabularies[1].size)).to(kind)
                        filler = mean if change is None else change.apply(mean[None], size)[0]
                    result[index - start] = filler
            inside = sorted(index for index in range(start, stop) if index in kept)
            if inside:
                source = np.array([kept[index] for index in inside], dtype=np.int64)
                result[[index - start for index in inside]] = gather_mixed(own, source).to(kind)
            yield result

    return blocks


def _bias(models: Models, rows: int) -> torch.Tensor:
    """The head's bias: ``b_ru + T (b_inst − b_base)``, the instruct model's own for kept rows, 0 for padding."""
    import torch

    values = [
        next(iter(read_blocks(cast("StoredTensor", m.embeddings.bias), 1 << 30)))[1].to(torch.float64).numpy()
        for m in (models.base, models.adapted, models.instruct)
    ]
    base, trained, own = values
    matched = models.alignment.base_to_instruct
    change = np.where(matched >= 0, own[np.maximum(matched, 0)] - base, 0.0)
    result = np.zeros(rows)
    size = models.vocabularies[1].size
    result[:size] = (trained + models.transfer @ change)[:size]
    for index, source in models.alignment.kept.items():
        result[index] = own[source]
    return torch.from_numpy(result)


def _correlation(matrices: Matrices) -> float:
    """Mean cosine of up to 2,048 evenly chosen shared rows of base and instruct model."""
    pairs = matrices.alignment.shared[:, [0, 2]]
    pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), 2048)).astype(np.int64)]
    left, right = finite_rows(matrices.base, pairs[:, 0]), finite_rows(matrices.instruct, pairs[:, 1])
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = (left * right).sum(axis=1)[norms > 0] / norms[norms > 0]
    return float(cosines.mean()) if len(cosines) else 0.0
