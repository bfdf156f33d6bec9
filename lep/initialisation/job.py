"""New embeddings and head from the old ones, for a new vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from lep.corpus.read import read_texts
from lep.initialisation.auxiliary import corpus_vectors, donor_vectors, pursuit_weights, similarity_weights
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
from lep.model.shards import NewTensor, StoredTensor, torch_dtype
from lep.tokenizer.folder import PROBES, loading_difference
from lep.tokenizer.transfer import Transfer, apply_rows, build_transfer
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Strategy = Literal["mean", "weighted", "random", "random-row", "focus", "omp"]
STRATEGIES: tuple[Strategy, ...] = ("mean", "weighted", "random", "random-row", "focus", "omp")
_BLOCK = 4096


def initialise(
    model: str | Path,
    tokenizer: str | Path,
    output: str | Path,
    *,
    strategy: Strategy = "mean",
    seed: int = 0,
    diagonal: bool = False,
    corpus: Sequence[str | Path] = (),
    donor: str | Path | None = None,
    atoms: int = 64,
    field: str = "text",
    pad_to: int = 64,
    link: bool = False,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the model in another vocabulary; returns the manifest.

    Tokens that the old vocabulary has keep their rows, bit for bit. Any other token t gets, in every strategy for
    embedding and head alike:

    | strategy | row |
    |---|---|
    | mean | ``mean_j E_old(u_j)`` over the old tokens u_1..u_K of t's bytes |
    | weighted | the same with weights 1/(j+1), a tenth of that for pieces of white space |
    | random | a draw from a normal with the old rows' mean and covariance (`diagonal`: variances only) |
    | random-row | the row of a random old token |
    | focus | shared tokens weighted by sparsemax of their similarity to t (arXiv 2305.14481) |
    | omp | shared tokens by orthogonal matching pursuit on t's vector, at most `atoms` (arXiv 2506.06607) |

    Similarities come from `donor`'s embeddings or, without one, from vectors learned on `corpus`
    (`lep.initialisation.auxiliary`); tokens without a vector fall back to the mean. Padding rows are the
    mean of all old rows: their logit is the mean of all logits, so that they are never the most likely token.

    Args:
        model: the old model, |V_old| x d.
        tokenizer: a folder with the new tokenizer.
        output: the folder to write.
        strategy: see above.
        seed: for `random` and `random-row`.
        diagonal: for `random`.
        corpus: texts for `focus` and `omp`.
        donor: a model with the new tokens, for `focus` and `omp`.
        atoms: most shared tokens for `omp`.
        field: text field of the corpus.
        pad_to: rows are rounded up to a multiple of this.
        link: hard-link unchanged shards.
        force: replace an output folder that exists.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: an unknown strategy, a tokenizer larger than the model, vocabularies without any common token.
        DarumeruError: `AutoTokenizer` does not read the tokenizer as it is beside this model.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"Unknown strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}.")
    if pad_to < 1:
        raise UserError(f"--pad-to must be at least 1, not {pad_to}.")
    source = open_checkpoint(model)
    old, new = Vocabulary.load(source.folder), Vocabulary.load(tokenizer)
    if new.folder is None:  # pragma: no cover - load always sets it
        raise DarumeruError("The tokenizer has no folder.")
    if old.size > source.embeddings.rows:
        raise UserError(
            f"{source.folder.name} has {source.embeddings.rows} rows for {old.size} tokens. Tokenizer and model do not "
            "belong together."
        )
    rows = -(-new.size // pad_to) * pad_to
    transfer = build_transfer(
        old,
        new,
        old_rows=source.embeddings.rows,
        new_rows=rows,
        weights="weighted" if strategy == "weighted" else "mean",
    )
    if not transfer.copied.any() and not (transfer.pieces > 0).any():
        raise UserError(f"{new.folder.name} and {source.folder.name} have no token in common.")
    extra: dict[str, Any] = {}
    if strategy == "random-row":
        transfer = _random_rows(transfer, old, seed)
    elif strategy in ("focus", "omp"):
        vectors = _vectors(new, corpus, donor, field)
        transfer, extra = _by_similarity(transfer, vectors, strategy, atoms)

    ids = matching_ids(old, new)
    for text in _lost_controls(source, old, ids):
        warn(f"The control token {text!r} of the model is not in the new tokenizer; its id was dropped.")
    settings: dict[str, Any] = {"strategy": strategy, "pad_to": pad_to}
    settings |= {"seed": seed} if strategy.startswith("random") else {}
    settings |= {"diagonal": True} if strategy == "random" and diagonal else {}
    measures = {"rows": {"old": source.embeddings.rows, "new": rows}, "tokens": len(new.strings)}
    measures |= {**transfer.summary(), **extra}
    inputs = {"model": source.folder, "tokenizer": new.folder}
    if donor is not None:
        inputs["donor"] = open_checkpoint(donor).folder

    tensors = [t for t in (source.embeddings.input, source.embeddings.head, source.embeddings.bias) if t is not None]
    random = (seed, diagonal) if strategy == "random" else None
    changed = {
        tensor.name: NewTensor(
            tensor.dtype, (rows, *tensor.shape[1:]), new_rows(tensor, transfer, old_tokens=old.size, random=random)
        )
        for tensor in tensors
    }
    with new_folder(Path(output), inputs=inputs.values(), force=force) as place:
        old_rows = config_rows(source)
        generation = source.folder / "generation_config.json"
        write_checkpoint(
            source,
            place,
            replace=changed,
            config=config_with(source.config, old_rows=old_rows, rows=rows, ids=ids),
            tokenizer=new.folder,
            generation_config=(
                config_with(read_json(generation), old_rows=old_rows, rows=rows, ids=ids)
                if generation.is_file()
                else None
            ),
            link=link,
        )
        difference = loading_difference(place, PROBES)
        if difference is not None:
            raise DarumeruError(f"AutoTokenizer reads the tokenizer otherwise beside this model: {difference}.")
        return write_manifest(place, "init", inputs=inputs, settings=settings, measures=measures)


def new_rows(
    tensor: StoredTensor,
    transfer: Transfer,
    *,
    old_tokens: int,
    random: tuple[int, bool] | None = None,
) -> Callable[[], Iterator[torch.Tensor]]:
    """A function that yields blocks of the new matrix (or bias), in the stored type.

    Args:
        tensor: the old matrix, old rows x d, or the old bias.
        transfer: T; copied rows are copied, others computed in float64 and rounded once.
        old_tokens: rows of the old matrix that are tokens, not padding.
        random: (seed, diagonal) where rows that are not copied are drawn at random.
    """
    import torch

    kind = torch_dtype(tensor.dtype)

    def blocks() -> Iterator[torch.Tensor]:
        filler = torch.from_numpy(np.asarray(mean_row(tensor, old_tokens))).to(kind)
        draw = _normal(tensor, old_tokens, *random) if random is not None and len(tensor.shape) == 2 else None
        matrix = transfer.matrix
        for start in range(0, matrix.shape[0], _BLOCK):
            stop = min(start + _BLOCK, matrix.shape[0])
            copied = np.flatnonzero(transfer.copied[start:stop])
            result = filler.expand(stop - start, *tensor.shape[1:]).clone()
            if len(copied):
                sources = matrix.indices[matrix.indptr[start + copied]].astype(np.int64)
                result[torch.from_numpy(copied)] = gather_mixed(tensor, sources)
            others = np.flatnonzero(~transfer.copied[start:stop] & transfer.tokens[start:stop])
            if draw is not None and len(others):
                result[torch.from_numpy(others)] = draw(len(others)).to(kind)
            elif len(others):
                others = others[np.diff(matrix.indptr)[start + others] > 0]
                if len(others):
                    computed = torch.from_numpy(apply_rows(matrix[start + others], tensor))
                    if not bool(torch.isfinite(computed).all()):
                        raise UserError(
                            f"Tensor {tensor.name} of {tensor.file.parent.name} holds NaN or infinite values. "
                            "Repair or fetch that model again."
                        )
                    result[torch.from_numpy(others)] = computed.to(kind)
            yield result

    return blocks


def matching_ids(old: Vocabulary, new: Vocabulary) -> dict[int, int]:
    """Old id → id of the same token in the new vocabulary, where it has it."""
    found: dict[int, int] = {}
    for index in old.strings:
        other = new.by_added_text.get(old.added[index]["content"]) if index in old.added else None
        if other is None:
            other = new.by_bytes.get(old.bytes_of(index))
        if other is not None:
            found[index] = other
    return found


def _normal(tensor: StoredTensor, tokens: int, seed: int, diagonal: bool) -> Callable[[int], torch.Tensor]:
    """Draws from a normal with the mean and covariance (or variances) of the first `tokens` rows."""
    import torch

    dim = tensor.shape[1]
    mean = torch.from_numpy(mean_row(tensor, tokens))
    generator = torch.Generator().manual_seed(seed)
    spread = torch.zeros((dim,) if diagonal else (dim, dim), dtype=torch.float64)
    for start, block in read_blocks(tensor):
        centred = block[: max(0, tokens - start)].to(torch.float64) - mean
        spread += (centred**2).sum(dim=0) if diagonal else centred.T @ centred
    spread /= tokens
    if diagonal:
        deviation = torch.sqrt(spread)
        return lambda n: mean + deviation * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    # Fewer rows than columns leave the covariance singular; a trace of the mean variance makes it definite.
    spread += 1e-9 * torch.trace(spread) / dim * torch.eye(dim, dtype=torch.float64)
    factor = torch.linalg.cholesky(spread)
    return lambda n: mean + torch.randn(n, dim, generator=generator, dtype=torch.float64) @ factor.T


def _random_rows(transfer: Transfer, old: Vocabulary, seed: int) -> Transfer:
    rng = np.random.default_rng(seed)
    ordinary = np.array(sorted(index for index in old.strings if not old.is_special(index)), dtype=np.int64)
    wanted = np.flatnonzero(transfer.tokens & ~transfer.copied)
    chosen = rng.choice(ordinary, size=len(wanted))
    return replace(
        transfer,
        matrix=_with_rows(
            transfer,
            wanted,
            scipy.sparse.csr_array(
                (np.ones(len(wanted)), (np.arange(len(wanted)), chosen)), shape=(len(wanted), transfer.matrix.shape[1])
            ),
        ),
    )


def _vectors(
    new: Vocabulary, corpus: Sequence[str | Path], donor: str | Path | None, field: str
) -> NDArray[np.float32]:
    if donor is not None:
        checkpoint = open_checkpoint(donor)
        return donor_vectors(new, checkpoint, Vocabulary.load(checkpoint.folder))
    if not corpus:
        raise UserError("focus and omp compare tokens; give texts with --corpus, or a model with --donor.")
    return corpus_vectors(new, read_texts(corpus, field=field))


def _by_similarity(
    transfer: Transfer, vectors: NDArray[np.float32], strategy: str, atoms: int
) -> tuple[Transfer, dict[str, Any]]:
    """T with the rows of new tokens that have a vector replaced by sums over shared tokens that have one."""
    known = np.zeros(transfer.matrix.shape[0], dtype=bool)
    known[: len(vectors)] = np.linalg.norm(vectors, axis=1) > 0
    shared = np.flatnonzero(transfer.copied & known)
    wanted = np.flatnonzero(transfer.tokens & ~transfer.copied & known)
    if not len(shared):
        raise UserError("No token that the vocabularies share occurs in the corpus or donor; give other texts.")
    if not len(wanted):
        return transfer, {"by_similarity": 0}
    if strategy == "focus":
        weights = similarity_weights(vectors[wanted], vectors[shared])
    else:
        weights = pursuit_weights(vectors[wanted], vectors[shared], atoms=atoms)
    sources = transfer.matrix.indices[transfer.matrix.indptr[shared]]
    columns = scipy.sparse.csr_array(
        (np.ones(len(shared)), (np.arange(len(shared)), sources)), shape=(len(shared), transfer.matrix.shape[1])
    )
    rows = scipy.sparse.csr_array(weights @ columns)
    extra = {
        "by_similarity": len(wanted),
        "shared_tokens": len(shared),
        "mean_sources": float(np.diff(rows.indptr).mean()),
    }
    return replace(transfer, matrix=_with_rows(transfer, wanted, rows)), extra


def _with_rows(transfer: Transfer, index: NDArray[np.int64], rows: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    keep = np.ones(transfer.matrix.shape[0])
    keep[index] = 0
    place = scipy.sparse.csr_array(
        (np.ones(len(index)), (index, np.arange(len(index)))), shape=(transfer.matrix.shape[0], len(index))
    )
    mask = scipy.sparse.dia_array((keep[None, :], [0]), shape=(len(keep), len(keep)))
    result = scipy.sparse.csr_array(mask @ transfer.matrix + place @ rows)
    result.eliminate_zeros()
    return result


def _lost_controls(model: Checkpoint, old: Vocabulary, ids: dict[int, int]) -> list[str]:
    lost = []
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = model.config.get(key)
        for index in value if isinstance(value, list) else [value]:
            if isinstance(index, int) and index in old.strings and index not in ids:
                lost.append(old.strings[index])
    return list(dict.fromkeys(lost))
