"""New embeddings and head from the old ones, for a new vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from darumeru.options import Option
from lep.initialisation import strategy as strategies
from lep.initialisation.rows import Change, new_rows
from lep.model.checkpoint import Checkpoint, config_rows, config_with, open_checkpoint, write_checkpoint
from lep.model.folders import new_folder
from lep.model.manifest import write_manifest
from lep.model.shards import NewTensor
from lep.options import Field, Force, Link, Model, Output
from lep.tokenizer.folder import PROBES, loading_difference
from lep.tokenizer.transfer import matching_ids
from lep.tokenizer.vocabulary import Vocabulary


def initialise(
    model: Model,
    tokenizer: Annotated[str | Path, Option("Folder with the new tokenizer.")],
    output: Output,
    *,
    strategy: Annotated[str, Option(f"{', '.join(strategies.names())}.")] = "mean",
    seed: Annotated[int, Option("random, random-row: of the draws.")] = 0,
    diagonal: Annotated[bool, Option("random: variances instead of covariance.", flag="--diagonal")] = False,
    corpus: Annotated[Sequence[str | Path], Option("focus, omp: texts to compare tokens by.", many="spread")] = (),
    donor: Annotated[str | Path | None, Option("focus, omp: a model with the new tokens, to compare them by.")] = None,
    atoms: Annotated[int, Option("omp: most shared tokens for one new one.")] = 64,
    field: Field = "text",
    pad_to: Annotated[int, Option("Round the rows up to a multiple of this.")] = 64,
    link: Link = False,
    force: Force = False,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the model in another vocabulary; returns the manifest.

    Tokens that the old vocabulary has keep their rows, bit for bit. Any other token gets, in embedding and head alike,
    what the strategy says: a file of `lep.initialisation.strategies`, or of another package
    (`lep.initialisation.strategy`). Padding rows are the mean of all old rows: their logit is the mean of all logits, so
    that they are never the most likely token.

    Args:
        model: the old model, |V_old| x d.
        tokenizer: a folder with the new tokenizer.
        output: the folder to write.
        strategy: a name of `lep.initialisation.strategy.names`; of the settings that follow it takes those that it has.
        seed: of random draws.
        diagonal: `random`: variances in place of the covariance.
        corpus: texts to compare tokens by.
        donor: a model with the new tokens, to compare them by in place of `corpus`.
        atoms: `omp`: most shared tokens for a new one.
        field: text field of the corpus.
        pad_to: rows are rounded up to a multiple of this.
        link: hard-link unchanged shards.
        force: replace an output folder that exists.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: an unknown strategy, a tokenizer larger than the model, vocabularies without any common token.
        DarumeruError: `AutoTokenizer` does not read the tokenizer as it is beside this model.
    """
    chosen = strategies.find(strategy)
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
    given: dict[str, Any] = {
        "seed": seed, "diagonal": diagonal, "corpus": corpus, "donor": donor, "atoms": atoms, "field": field
    }  # fmt: skip
    own = {name: value for name, value in given.items() if name in chosen.settings}
    made = chosen.choose(Change(old, new, source.embeddings.rows, rows), **own)
    if not made.transfer.copied.any() and not (made.transfer.pieces > 0).any():
        raise UserError(f"{new.folder.name} and {source.folder.name} have no token in common.")

    ids = matching_ids(old, new)
    for text in _lost_controls(source, old, ids):
        warn(f"The control token {text!r} of the model is not in the new tokenizer; its id was dropped.")
    settings: dict[str, Any] = {"strategy": strategy, "pad_to": pad_to}
    settings |= {name: own[name] for name in ("seed", "diagonal", "atoms") if name in own}
    measures = {"rows": {"old": source.embeddings.rows, "new": rows}, "tokens": len(new.strings)}
    measures |= {**made.transfer.summary(), **made.measures}
    inputs = {"model": source.folder, "tokenizer": new.folder}
    if own.get("donor") is not None:
        inputs["donor"] = open_checkpoint(own["donor"]).folder

    found = source.embeddings
    head = made.transfer if found.tied else made.head or made.transfer
    changed = {
        tensor.name: NewTensor(
            tensor.dtype,
            (rows, *tensor.shape[1:]),
            new_rows(tensor, transfer, old_tokens=old.size, draw=made.draw),
        )
        for tensor, transfer in ((found.input, made.transfer), (found.head, head), (found.bias, head))
        if tensor is not None
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


def _lost_controls(model: Checkpoint, old: Vocabulary, ids: dict[int, int]) -> list[str]:
    lost = []
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = model.config.get(key)
        for index in value if isinstance(value, list) else [value]:
            if isinstance(index, int) and index in old.strings and index not in ids:
                lost.append(old.strings[index])
    return list(dict.fromkeys(lost))
