"""Learned Embedding Propagation: trained embeddings of a base model carried over to its instruct variant.

Tikhomirov and Chernyshev, arXiv 2412.21140. With rows as tokens, ``E_inst,ru = E_ru D`` for the input embedding, and
likewise, with a map of its own, for the output head (one map where they are tied). Layers that the adaptation trained
besides are carried over as `lep.propagation.backbone` says. Everything else of the instruct model is copied unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from darumeru.errors import UserError
from darumeru.options import Option
from lep.model.checkpoint import locate
from lep.model.folders import new_folder
from lep.model.manifest import write_manifest
from lep.model.shards import NewTensor
from lep.options import Force, Link, Output
from lep.propagation import method as methods
from lep.propagation.backbone import trained_tensors, with_changes
from lep.propagation.models import Models, open_models
from lep.propagation.result import token_tensors, write_model

_SHARES = (1.0, 0.75, 0.5, 0.25)
"""Values of α that `auto` tries."""


def propagate(
    base: Annotated[str | Path, Option("The base model B.")],
    adapted: Annotated[str | Path, Option("B in the new vocabulary, embeddings trained.")],
    instruct: Annotated[str | Path, Option("The instruct variant of B.")],
    output: Output,
    *,
    method: Annotated[str, Option(f"{', '.join(methods.choices())}.")] = "conversion",
    strength: Annotated[float, Option("ridge: λ in units of the mean eigenvalue.")] = 0.1,
    backbone: Annotated[
        Literal["delta", "instruct"],
        Option(
            "delta: what the training of B changed in its layers is added to the instruct model's. instruct: left out."
        ),
    ] = "delta",
    alpha: Annotated[float | None, Option("delta: share that is added.", default="1; auto: chosen by the text")] = None,
    texts: Sequence[str] = (),
    link: Link = False,
    force: Force = False,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the instruct model in the adapted model's vocabulary; returns the manifest.

    How D (and U, from the output heads) is found is the method's: a file of `lep.propagation.methods`, or of another
    package (`lep.propagation.method`). `auto` takes the candidate with the fewest bits per byte on `texts`.

    Fits are exact in float64 (`lep.propagation.linalg`) and rows are rounded once. Rows that the instruct model changed or
    added for control tokens are its own rows: tokens that the adapted tokenizer lacks, and special tokens whose
    instruct row differs from the base row. Padding rows that the instruct model has stay its own too.

    Args:
        base: the base model B, folder or hub id, |V| x d.
        adapted: B with the new vocabulary and trained embeddings, |V_new| x d.
        instruct: the instruct variant of B, |V_inst| x d, in B's vocabulary (its own control tokens may be more).
        output: the folder to write.
        method: a name of `lep.propagation.method.choices`.
        strength: of methods that have this setting; of `ridge` λ, in units of the Gram matrix's mean eigenvalue.
        backbone: `delta` adds ``α (W_adapted − W_base)`` to the instruct model's layers; `instruct` takes those as they are.
        alpha: α of `delta`. None is 1, and under `auto` the best of 0.25, 0.5, 0.75 and 1 on `texts`.
        texts: held-out documents for `auto`.
        link: hard-link unchanged shards.
        force: replace an output folder that exists.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: an unknown method, shapes or families that do not match, vocabularies without overlap, rows that are
            not finite.
    """
    chosen = None if method == methods.AUTO else methods.find(method)
    if chosen is None and not any(text.strip() for text in texts):
        raise UserError("The method auto compares candidates on a held-out text; give one with --text FILE.")
    if alpha is not None and not 0 <= alpha <= 2:
        raise UserError(f"--alpha must be from 0 to 2, not {alpha}. 1 adds the whole change, 0 none of it.")
    inputs = {role: locate(source) for role, source in (("base", base), ("adapted", adapted), ("instruct", instruct))}
    own = {"strength": strength} if chosen is not None and "strength" in chosen.settings else {}
    settings: dict[str, Any] = {"method": method, **own}
    with (
        new_folder(Path(output), inputs=inputs.values(), force=force) as place,
        tempfile.TemporaryDirectory(dir=place) as heads,
    ):
        models = open_models(inputs["base"], inputs["adapted"], inputs["instruct"], Path(heads))
        changed = trained_tensors(models.base, models.adapted)
        if changed and backbone == "instruct":
            warn(
                f"The adaptation trained {len(changed)} tensors besides embeddings and head, such as {changed[0]}; with "
                "--backbone instruct they are left out, and the rows were trained to go with them."
            )
        if changed:
            settings |= {"backbone": backbone} | ({"alpha": alpha} if alpha is not None else {})

        def layers(share: float) -> dict[str, NewTensor]:
            added = changed if backbone == "delta" and share else []
            return with_changes(models.base, models.adapted, models.instruct, added, share)

        share = 1.0 if alpha is None else alpha
        measures: dict[str, Any] = {}
        if chosen is None:
            shares = _SHARES if changed and backbone == "delta" and alpha is None else (share,)
            measures, fits, share = _best(models, texts, shares, layers)
        else:
            fits = {m.name: chosen.fit(m, **own) for m in models.matrices()}
        measures |= write_model(models, fits, place, layers=layers(share), link=link, warn=warn)
        if changed:
            measures |= {"trained_tensors": len(changed), "alpha": share if backbone == "delta" else 0.0}
        return write_manifest(place, "propagate", inputs=inputs, settings=settings, measures=measures)


def _best(
    models: Models, texts: Sequence[str], shares: Sequence[float], layers: Callable[[float], Mapping[str, NewTensor]]
) -> tuple[dict[str, Any], Mapping[str, methods.Change | None], float]:
    """The candidate with the fewest held-out bits per byte: its maps, and its share of the layers' change.

    Maps are compared with the first share, shares with the best map; all are tried in memory (`lep.propagation.trial`).
    """
    from lep.propagation.trial import Trial

    trial, scores = Trial(models, texts), {}
    trial.put(layers(shares[0]))

    def measured(title: str, tensors: Mapping[str, NewTensor]) -> float:
        trial.put(tensors)
        scores[title] = trial.bits_per_byte()
        return scores[title]

    best: tuple[tuple[float, bool], str, Mapping[str, methods.Change | None]] | None = None
    matrices = models.matrices(reused=True)
    for name in methods.names():
        method = methods.find(name)
        for settings in method.candidates:
            fits: Mapping[str, methods.Change | None] = {m.name: method.fit(m, **settings) for m in matrices}
            title = " ".join([name, *(f"{value:g}" for value in settings.values())])
            # Of equals, the one that changes nothing.
            rank = measured(title, token_tensors(models, fits)), any(fit is not None for fit in fits.values())
            if best is None or rank < best[0]:
                best = rank, title, fits
    assert best is not None  # noqa: S101 - lep's own methods are candidates
    (bits, _), title, maps = best
    found = {shares[0]: bits}
    if len(shares) > 1:
        trial.put(token_tensors(models, maps))
    found |= {share: measured(f"{title}, alpha {share:g}", layers(share)) for share in shares[1:]}
    return {"chosen": title, "bits_per_byte": scores}, maps, min(found, key=lambda share: found[share])
