"""The three models that propagation reads, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from darumeru.errors import UserError
from lep.model.checkpoint import Checkpoint, open_checkpoint
from lep.model.untie import untied
from lep.propagation.alignment import Alignment, align
from lep.propagation.matrices import Matrices, fitted_rows
from lep.tokenizer.transfer import build_transfer
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    import scipy.sparse

    from darumeru.weights import StoredTensor


@dataclass(frozen=True)
class Models:
    """Base, adapted and instruct model, their vocabularies, and which tokens are the same."""

    base: Checkpoint
    adapted: Checkpoint
    instruct: Checkpoint
    vocabularies: tuple[Vocabulary, Vocabulary, Vocabulary]
    alignment: Alignment

    def matrices(self, *, reused: bool = False) -> list[Matrices]:
        """The matrices to be mapped: the embedding, and the head where it is one of its own; `reused` as there."""
        base, adapted, instruct = (model.embeddings for model in (self.base, self.adapted, self.instruct))
        found = {"embedding": (base.input, adapted.input, instruct.input)}
        if not base.tied:
            found["head"] = cast(
                "tuple[StoredTensor, StoredTensor, StoredTensor]", (base.head, adapted.head, instruct.head)
            )
        return [
            Matrices(name, *tensors, self.alignment, lambda: self.transfer, lambda: self._fitted, reused)
            for name, tensors in found.items()
        ]

    @cached_property
    def transfer(self) -> scipy.sparse.csr_array:
        """T of the mean initialisation, |V_new| x |V|."""
        base, adapted, _ = self.vocabularies
        rows = self.base.embeddings.input.shape[0], self.adapted.embeddings.rows
        return build_transfer(base, adapted, old_rows=rows[0], new_rows=rows[1]).matrix

    @cached_property
    def _fitted(self) -> scipy.sparse.csr_array:
        return fitted_rows(self.transfer, self.alignment)


def open_models(base: str | Path, adapted: str | Path, instruct: str | Path, place: Path) -> Models:
    """Open the three models.

    Where only the adapted one has a head of its own (`lep pretrain --untie`), the others get theirs too.

    Args:
        base: the base model.
        adapted: the base in the new vocabulary.
        instruct: the instruct variant of the base.
        place: a folder for base and instruct model with heads of their own; it must stay as long as the models are read.

    Raises:
        UserError: shapes or families that do not match, vocabularies without overlap.
    """
    models = [open_checkpoint(source) for source in (base, adapted, instruct)]
    if [model.embeddings.tied for model in models] == [True, False, True]:
        models = [untied(models[0], place / "base"), models[1], untied(models[2], place / "instruct")]
    _check_shapes(*models)
    vocabularies = [Vocabulary.load(model.folder) for model in models]
    for model, vocabulary, role in zip(models, vocabularies, ("base", "adapted", "instruct"), strict=True):
        if vocabulary.size > model.embeddings.rows:
            raise UserError(
                f"The {role} model {model.folder.name} has {model.embeddings.rows} rows for {vocabulary.size} tokens. "
                "Tokenizer and model do not belong together."
            )
    first, second, third = vocabularies
    return Models(models[0], models[1], models[2], (first, second, third), align(models, vocabularies))


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
