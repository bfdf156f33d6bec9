"""Learned Embedding Propagation: trained embeddings of a base model carried over to its instruct variant.

Tikhomirov and Chernyshev, arXiv 2412.21140. With rows as tokens, ``E_inst,ru = E_ru D`` for the input embedding, and
likewise, with a map of its own, for the output head (one map where they are tied). Everything else of the instruct
model is copied unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from darumeru.errors import UserError
from darumeru.options import Option
from lep.model.folders import new_folder
from lep.model.manifest import write_manifest
from lep.options import Force, Link, Output
from lep.propagation import method as methods
from lep.propagation.linalg import Fit
from lep.propagation.models import Models, open_models
from lep.propagation.result import write_model


def propagate(
    base: Annotated[str | Path, Option("The base model B.")],
    adapted: Annotated[str | Path, Option("B in the new vocabulary, embeddings trained.")],
    instruct: Annotated[str | Path, Option("The instruct variant of B.")],
    output: Output,
    *,
    method: Annotated[str, Option(f"{', '.join(methods.choices())}.")] = "conversion",
    strength: Annotated[float, Option("ridge: λ in units of the mean eigenvalue.")] = 0.1,
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
    models = open_models(base, adapted, instruct)
    inputs = {"base": models.base.folder, "adapted": models.adapted.folder, "instruct": models.instruct.folder}
    settings = {"strength": strength} if chosen is not None and "strength" in chosen.settings else {}
    write = partial(write_model, models, link=link, warn=warn)
    with new_folder(Path(output), inputs=inputs.values(), force=force) as place:
        if chosen is None:
            found, fits = _best(models, texts, write, place)
            measures = {**found, **write(fits, place)}
        else:
            measures = write({m.name: chosen.fit(m, **settings) for m in models.matrices()}, place)
        return write_manifest(
            place, "propagate", inputs=inputs, settings={"method": method, **settings}, measures=measures
        )


def _best(
    models: Models,
    texts: Sequence[str],
    write: Callable[[dict[str, Fit | None], Path], dict[str, Any]],
    place: Path,
) -> tuple[dict[str, Any], dict[str, Fit | None]]:
    """The candidate with the fewest held-out bits per byte, and its maps; each is written to a folder in `place`."""
    from lep.measure.bits import bits_per_byte

    matrices = models.matrices(reused=True)
    scores: dict[str, float] = {}
    best: tuple[tuple[float, bool], str, dict[str, Fit | None]] | None = None
    for name in methods.names():
        method = methods.find(name)
        for settings in method.candidates:
            fits = {m.name: method.fit(m, **settings) for m in matrices}
            title = " ".join([name, *(f"{value:g}" for value in settings.values())])
            with tempfile.TemporaryDirectory(dir=place) as folder:
                write(fits, Path(folder))
                scores[title] = bits_per_byte(Path(folder), texts)
            # Of equals, the one that changes nothing.
            rank = scores[title], any(fit is not None for fit in fits.values())
            if best is None or rank < best[0]:
                best = rank, title, fits
    assert best is not None  # noqa: S101 - lep's own methods are candidates
    return {"chosen": best[1], "bits_per_byte": scores}, best[2]
