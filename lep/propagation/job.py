"""Learned Embedding Propagation: trained embeddings of a base model carried over to its instruct variant.

Tikhomirov and Chernyshev, arXiv 2412.21140. With rows as tokens, ``E_inst,ru = E_ru D`` for the input embedding, and
likewise, with a map of its own, for the output head (one map where they are tied). Everything else of the instruct
model is copied unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import scipy.sparse

from darumeru.errors import UserError
from darumeru.files import read_json
from lep.model.checkpoint import (
    Checkpoint,
    config_rows,
    config_with,
    gather_mixed,
    mean_row,
    open_checkpoint,
    read_blocks,
    write_checkpoint,
)
from lep.model.folders import new_folder
from lep.model.manifest import write_manifest
from lep.model.shards import NewTensor, StoredTensor
from lep.propagation.alignment import Alignment, align
from lep.propagation.linalg import Blocks, Fit, Gram, accumulate, add_symmetric, least_squares, ridge
from lep.tokenizer.folder import read_config, save_tokenizer
from lep.tokenizer.transfer import build_transfer, split_coupled
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Method = Literal["swap", "overlap", "conversion", "ridge", "auto"]
METHODS: tuple[Method, ...] = ("swap", "overlap", "conversion", "ridge", "auto")
RIDGE_STRENGTHS = (0.01, 0.1, 1.0)
"""λ tried by `auto`, in units of the Gram matrix's mean eigenvalue."""
_BLOCK = 2048
_PANEL = 512
_MOST_COUPLED = 16_384
"""Up to this many old tokens that new ones are made of, their rows are held in memory (1.6 GB at d = 4096)."""
_LOW_CORRELATION = 0.5


def propagate(
    base: str | Path,
    adapted: str | Path,
    instruct: str | Path,
    output: str | Path,
    *,
    method: Method = "conversion",
    strength: float = 0.1,
    texts: Sequence[str] = (),
    link: bool = False,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the instruct model in the adapted model's vocabulary; returns the manifest.

    | method | D (U alike, from the output heads) |
    |---|---|
    | swap | identity |
    | overlap | ``argmin ‖I_base[C] D − I_inst[C]‖`` over the tokens C that the vocabularies share |
    | conversion | ``argmin ‖T I_base D − T I_inst‖`` over the whole new vocabulary, T the mean initialisation |
    | ridge | as conversion, shrunk towards the identity: ``D = Id + (G + λ Id)⁻¹ Aᵀ(B − A)`` |
    | auto | the one of these (λ = 0.01, 0.1, 1) with the fewest bits per byte on `texts` |

    Fits are exact in float64 (`lep.propagation.linalg`) and rows are rounded once. Rows that the instruct model changed or
    added for control tokens are its own rows: tokens that the adapted tokenizer lacks, and special tokens whose
    instruct row differs from the base row. Padding rows that the instruct model has stay its own too.

    Args:
        base: the base model B, folder or hub id, |V| x d.
        adapted: B with the new vocabulary and trained embeddings, |V_new| x d.
        instruct: the instruct variant of B, |V_inst| x d, in B's vocabulary (its own control tokens may be more).
        output: the folder to write.
        method: see above.
        strength: λ of `ridge`, in units of the Gram matrix's mean eigenvalue.
        texts: held-out documents for `auto`.
        link: hard-link unchanged shards.
        force: replace an output folder that exists.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: shapes or families that do not match, vocabularies without overlap, rows that are not finite.
    """
    if method not in METHODS:
        raise UserError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if method == "auto" and not any(text.strip() for text in texts):
        raise UserError("The method auto compares candidates on a held-out text; give one with --text FILE.")
    models = [open_checkpoint(source) for source in (base, adapted, instruct)]
    _check_shapes(*models)
    vocabularies = [Vocabulary.load(model.folder) for model in models]
    for model, vocabulary, role in zip(models, vocabularies, ("base", "adapted", "instruct"), strict=True):
        if vocabulary.size > model.embeddings.rows:
            raise UserError(
                f"The {role} model {model.folder.name} has {model.embeddings.rows} rows for {vocabulary.size} tokens. "
                "Tokenizer and model do not belong together."
            )
    alignment = align(models, vocabularies)
    folder = Path(output)
    inputs = {"base": models[0].folder, "adapted": models[1].folder, "instruct": models[2].folder}
    job = _Job(models, vocabularies, alignment, link, warn)
    settings: dict[str, Any] = {"method": method, **({"strength": strength} if method == "ridge" else {})}
    with new_folder(folder, inputs=inputs.values(), force=force) as place:
        measures = job.best(place, texts) if method == "auto" else job.write(place, job.fits(method, strength))
        return write_manifest(place, "propagate", inputs=inputs, settings=settings, measures=measures)


def overlap_blocks(source: StoredTensor, target: StoredTensor, pairs: NDArray[np.int64]) -> Blocks:
    """Rows of A and B for `overlap`: the same tokens of base and instruct, b x d each, float64.

    Args:
        source: the base model's matrix.
        target: the instruct model's matrix.
        pairs: n x 2 row numbers.
    """

    def blocks() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for start in range(0, len(pairs), _BLOCK):
            part = pairs[start : start + _BLOCK]
            yield _finite(source, part[:, 0]), _finite(target, part[:, 1])

    return blocks


def conversion_blocks(
    source: StoredTensor, target: StoredTensor, matrix: scipy.sparse.csr_array, columns: NDArray[np.int64]
) -> Blocks:
    """Rows of A = T E_base and B = T E_inst for `conversion`, b x d each, float64.

    Args:
        source: the base model's matrix.
        target: the instruct model's matrix.
        matrix: T, rows x base rows.
        columns: for each base row the instruct row of the same token.
    """

    def blocks() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for start in range(0, matrix.shape[0], _BLOCK):
            part = matrix[start : start + _BLOCK]
            used, compact = np.unique(part.indices, return_inverse=True)
            weights = scipy.sparse.csr_array((part.data, compact, part.indptr), shape=(part.shape[0], len(used)))
            yield weights @ _finite(source, used.astype(np.int64)), weights @ _finite(target, columns[used])

    return blocks


def conversion_sums(
    source: StoredTensor, target: StoredTensor, matrix: scipy.sparse.csr_array, columns: NDArray[np.int64]
) -> Gram:
    """The Gram sums of `conversion_blocks`, without the rows of T E where many new tokens share few old ones.

    With U the old tokens that new ones are made of, and T_U the part of T that reaches them, ``AᵀA`` is the sum of the
    tokens that are only copied and of ``E_Uᵀ (T_Uᵀ T_U E_U)``: products of |U| rows in place of those of all new tokens.
    """
    import torch

    dim = source.shape[1]
    copies, mixed, coupled = split_coupled(matrix)
    if len(coupled) > min(_MOST_COUPLED, mixed.shape[0]):
        return accumulate(conversion_blocks(source, target, matrix, columns), dim)
    sums = accumulate(conversion_blocks(source, target, copies, columns), dim)
    if not len(coupled):
        return sums
    left, right = _finite(source, coupled), _finite(target, columns[coupled])
    product = np.empty_like(left)
    norm = 0.0
    for start in range(0, dim, _PANEL):
        panel = slice(start, start + _PANEL)
        product[:, panel] = mixed.T @ (mixed @ np.ascontiguousarray(left[:, panel]))
        norm += float(np.linalg.norm(mixed @ np.ascontiguousarray(right[:, panel]))) ** 2
    a, b, p = torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(product)
    add_symmetric(sums.gram, a, p)
    sums.cross.addmm_(p.T, b)
    return replace(
        sums,
        target=sums.target + norm,
        rows=sums.rows + mixed.shape[0],
        equal=sums.equal and torch.equal(a, b),
    )


@dataclass(frozen=True)
class _Job:
    models: Sequence[Checkpoint]
    vocabularies: Sequence[Vocabulary]
    alignment: Alignment
    link: bool
    warn: Callable[[str], None]

    def matrices(self) -> dict[str, tuple[StoredTensor, StoredTensor, StoredTensor]]:
        """The matrices to be mapped: the embedding, and the head where it is one of its own."""
        found = [model.embeddings for model in self.models]
        result = {"embedding": cast("tuple[StoredTensor, StoredTensor, StoredTensor]", tuple(e.input for e in found))}
        if not found[0].tied:
            heads = tuple(e.head for e in found)
            result["head"] = cast("tuple[StoredTensor, StoredTensor, StoredTensor]", heads)
        return result

    def transfer(self) -> scipy.sparse.csr_array:
        """T without the rows that are empty, that the instruct model keeps as its own, or that reach tokens it lacks."""
        base = self.models[0].embeddings.input
        kept = np.ones(self.models[1].embeddings.rows)
        kept[[index for index in self.alignment.kept if index < len(kept)]] = 0
        transfer = build_transfer(
            self.vocabularies[0], self.vocabularies[1], old_rows=base.shape[0], new_rows=len(kept)
        )
        mask = scipy.sparse.dia_array((kept[None, :], [0]), shape=(len(kept), len(kept)))
        matrix = scipy.sparse.csr_array(mask @ transfer.matrix)
        matrix.eliminate_zeros()
        lacking = (self.alignment.base_to_instruct < 0).astype(np.int64)
        reached = (matrix != 0).astype(np.int64) @ lacking
        return matrix[np.flatnonzero((np.diff(matrix.indptr) > 0) & (reached == 0))]

    def blocks(self, which: str, method: str) -> Blocks:
        base, _, instruct = self.matrices()[which]
        if method == "overlap":
            return overlap_blocks(base, instruct, self.alignment.shared[:, [0, 2]])
        return conversion_blocks(base, instruct, self.transfer(), self.alignment.base_to_instruct)

    def sums(self) -> dict[str, Gram]:
        """The Gram sums of `conversion`."""
        matrix, columns = self.transfer(), self.alignment.base_to_instruct
        return {
            which: conversion_sums(base, instruct, matrix, columns)
            for which, (base, _, instruct) in self.matrices().items()
        }

    def fits(self, method: str, strength: float) -> dict[str, Fit | None]:
        """A map for each matrix; None for the identity."""
        dim = self.models[0].embeddings.dim
        if method == "swap":
            return dict.fromkeys(self.matrices())
        if method == "ridge":
            return {which: ridge(sums, strength) for which, sums in self.sums().items()}
        if method == "overlap":
            return {which: least_squares(self.blocks(which, method), dim) for which in self.matrices()}
        matrix, columns = self.transfer(), self.alignment.base_to_instruct
        return {
            which: least_squares(
                conversion_blocks(base, instruct, matrix, columns),
                dim,
                conversion_sums(base, instruct, matrix, columns),
            )
            for which, (base, _, instruct) in self.matrices().items()
        }

    def write(self, place: Path, fits: dict[str, Fit | None]) -> dict[str, Any]:
        """Write the model folder and return its measures."""
        instruct, adapted = self.models[2], self.models[1]
        rows = self.rows()
        replace: dict[str, NewTensor] = {}
        measures: dict[str, Any] = {
            "tokens": self.alignment.size,
            "rows": rows,
            "shared_tokens": len(self.alignment.shared),
            "instruct_rows_kept": len(self.alignment.kept),
        }
        for which, (base, trained, tensor) in self.matrices().items():
            fit = fits[which]
            correlation = self.correlation(base, tensor)
            if correlation < _LOW_CORRELATION:
                self.warn(
                    f"The {which} rows of base and instruct model have a mean correlation of {correlation:.2f} "
                    "(variants of one model are near 1): is this the base that the instruct model was made from?"
                )
            measures[which] = {
                "correlation": correlation,
                **(fit.summary() if fit is not None else {"map": "identity"}),
            }
            replace[tensor.name] = NewTensor(
                tensor.dtype, (rows, tensor.shape[1]), self.rows_of(trained, tensor, fit.map if fit else None, rows)
            )
        found = instruct.embeddings
        if found.bias is not None:
            bias = self.bias(rows)
            replace[found.bias.name] = NewTensor(found.bias.dtype, (rows,), lambda: [bias])
        with tempfile.TemporaryDirectory(dir=place) as name:
            tokenizer = Path(name)
            overrides = {}
            if "tokenizer_class" in read_config(adapted.folder):
                overrides["tokenizer_class"] = read_config(adapted.folder)["tokenizer_class"]
            measures["tokenizer_class"] = save_tokenizer(
                self.alignment.spec,
                instruct.folder,
                tokenizer,
                model_config=instruct.folder / "config.json",
                config=overrides,
            )
            generation = instruct.folder / "generation_config.json"
            old_rows, ids = config_rows(instruct), self.alignment.ids
            write_checkpoint(
                instruct,
                place,
                replace=replace,
                config=config_with(instruct.config, old_rows=old_rows, rows=rows, ids=ids),
                tokenizer=tokenizer,
                generation_config=(
                    config_with(read_json(generation), old_rows=old_rows, rows=rows, ids=ids)
                    if generation.is_file()
                    else None
                ),
                link=self.link,
            )
        return measures

    def best(self, place: Path, texts: Sequence[str]) -> dict[str, Any]:
        """Write every candidate, keep the one with the fewest held-out bits per byte."""
        from lep.measure.bits import bits_per_byte

        dim = self.models[0].embeddings.dim
        candidates: dict[str, Callable[[], dict[str, Fit | None]]] = {
            "swap": lambda: self.fits("swap", 0),
            "overlap": lambda: self.fits("overlap", 0),
        }
        sums = self.sums()
        candidates["conversion"] = lambda: {
            which: least_squares(self.blocks(which, "conversion"), dim, sums[which].clone()) for which in sums
        }

        def shrunk(strength: float) -> dict[str, Fit | None]:
            return {which: ridge(sums[which], strength) for which in sums}

        candidates |= {f"ridge {strength:g}": partial(shrunk, strength) for strength in RIDGE_STRENGTHS}
        scores: dict[str, float] = {}
        best: tuple[float, str, dict[str, Fit | None]] | None = None
        for name, make in candidates.items():
            fits = make()
            with tempfile.TemporaryDirectory(dir=place) as folder:
                self.write(Path(folder), fits)
                scores[name] = bits_per_byte(Path(folder), texts)
            if best is None or scores[name] < best[0]:
                best = (scores[name], name, fits)
        assert best is not None  # noqa: S101 - there is always a candidate
        return {"chosen": best[1], "bits_per_byte": scores, **self.write(place, best[2])}

    def rows(self) -> int:
        """Rows of the result: those of the adapted model, or more (a multiple of 64) where tokens are added."""
        adapted = self.models[1].embeddings.rows
        return adapted if self.alignment.size <= adapted else -(-self.alignment.size // 64) * 64

    def rows_of(
        self, trained: StoredTensor, own: StoredTensor, change: NDArray[np.float64] | None, rows: int
    ) -> Callable[[], Iterable[torch.Tensor]]:
        """Blocks of the result: trained rows times the map, the instruct model's own rows where they are kept."""
        import torch

        size = trained.shape[0]  # its padding rows too
        own_size = self.vocabularies[2].size
        # As in `lep.tokenizer.transfer.apply_rows`: 65,536 times finer than what 16-bit rows are rounded to.
        kind = torch.float32 if own.dtype in ("BF16", "F16") else torch.float64
        matrix = None if change is None else torch.from_numpy(change).to(kind)
        kept = dict(self.alignment.kept)
        padding = range(self.alignment.size, rows)
        kept |= {index: index for index in padding if own_size <= index < own.shape[0]}

        def blocks() -> Iterator[torch.Tensor]:
            filler: torch.Tensor | None = None
            for start in range(0, rows, _BLOCK):
                stop = min(start + _BLOCK, rows)
                result = torch.zeros(stop - start, trained.shape[1], dtype=kind)
                last = min(stop, size)
                if last > start:
                    block = _finite_torch(trained, start, last).to(kind)
                    result[: last - start] = block if matrix is None else block @ matrix
                for index in range(max(start, size), stop):
                    if index not in kept:
                        if filler is None:
                            mean = torch.from_numpy(mean_row(trained, self.vocabularies[1].size)).to(kind)
                            filler = mean if matrix is None else mean @ matrix
                        result[index - start] = filler
                inside = sorted(index for index in range(start, stop) if index in kept)
                if inside:
                    source = np.array([kept[index] for index in inside], dtype=np.int64)
                    result[[index - start for index in inside]] = gather_mixed(own, source).to(kind)
                yield result

        return blocks

    def bias(self, rows: int) -> torch.Tensor:
        """The head's bias: ``b_ru + T (b_inst − b_base)``, the instruct model's own for kept rows, 0 for padding."""
        import torch

        values = [
            next(iter(read_blocks(cast("StoredTensor", m.embeddings.bias), 1 << 30)))[1].to(torch.float64).numpy()
            for m in self.models
        ]
        base, trained, own = values
        transfer = build_transfer(self.vocabularies[0], self.vocabularies[1], old_rows=len(base), new_rows=len(trained))
        matched = self.alignment.base_to_instruct
        change = np.where(matched >= 0, own[np.maximum(matched, 0)] - base, 0.0)
        result = np.zeros(rows)
        size = self.vocabularies[1].size
        result[:size] = (trained + transfer.matrix @ change)[:size]
        for index, source in self.alignment.kept.items():
            result[index] = own[source]
        return torch.from_numpy(result)

    def correlation(self, base: StoredTensor, own: StoredTensor) -> float:
        """Mean cosine of up to 2,048 evenly chosen shared rows of base and instruct model."""
        pairs = self.alignment.shared[:, [0, 2]]
        pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), 2048)).astype(np.int64)]
        left, right = _finite(base, pairs[:, 0]), _finite(own, pairs[:, 1])
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        cosines = (left * right).sum(axis=1)[norms > 0] / norms[norms > 0]
        return float(cosines.mean()) if len(cosines) else 0.0


def _check_shapes(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint) -> None:
    for role, model in (("adapted", adapted), ("instruct", instruct)):
        if model.architecture != base.architecture:
            raise UserError(
                f"The base is a {base.architecture} and the {role} model a {model.architecture}; all three must be "
                "variants of one model."
            )
        if model.embeddings.dim != base.embeddings.dim:
            raise UserError(
                f"The base's embeddings have {base.embeddings.dim} columns and the {role} model's "
                f"{model.embeddings.dim}; all three must be variants of one model."
            )
        if model.embeddings.tied != base.embeddings.tied:
            raise UserError(
                f"Head and embedding are {'tied' if base.embeddings.tied else 'separate'} in the base and "
                f"{'tied' if model.embeddings.tied else 'separate'} in the {role} model; make them alike first."
            )
        if (model.embeddings.bias is None) != (base.embeddings.bias is None):
            raise UserError(f"Only one of the base and the {role} model has a bias in its head; make them alike first.")


def _finite(tensor: StoredTensor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    import torch

    values: NDArray[np.float64] = gather_mixed(tensor, rows).to(torch.float64).numpy()
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise _not_finite(tensor, [int(row) for row in rows[bad]])
    return values


def _finite_torch(tensor: StoredTensor, start: int, stop: int) -> torch.Tensor:
    import torch

    return torch.from_numpy(_finite(tensor, np.arange(start, stop)))


def _not_finite(tensor: StoredTensor, rows: Sequence[int]) -> UserError:
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    return UserError(
        f"Tensor {tensor.name} of {tensor.file.parent.name} holds NaN or infinite values in row {shown}. "
        "Repair or fetch that model again."
    )
