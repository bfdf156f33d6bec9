"""A training on chats as two steps, for the stages `instruct` and `calibrate`: the chats, and the training on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.files import sibling
from darumeru.options import Option, option_of, settings_model
from lep.calibration.data import make_data
from lep.calibration.recipe import Recipe as TrainingRecipe
from lep.calibration.recipe import choose_recipe
from lep.calibration.train import calibrate
from lep.pipeline.memory import chats, reading
from lep.pipeline.price import Costs, Instead, Price
from lep.pipeline.sections import Section, Top, check_keys, checked, inside
from lep.pipeline.stage import Model, Study, Talk, inherited, named_files

Training = Mapping[str, Mapping[str, Any]]
"""The sections `data` and `train`."""

SECTIONS: dict[str, Section] = {
    "data": settings_model("data", make_data, "model output force progress"),
    "train": settings_model(
        "train",
        calibrate,
        "model data output fsdp force warn progress",  # `lep run` is one process
        recipe=(
            Annotated[Literal["self", "instruct"], Option("The paper's settings; every field can be changed.")],
            "self",
        ),
        # A field that is not given is the named recipe's; `choose_recipe` checks those that are.
        **{key: (Annotated[Any, option_of(field)], None) for key, field in TrainingRecipe.model_fields.items()},
    ),
}
PATHS = frozenset({"prompts", "judge", "copy_corpus", "exclude", "bundles"})
"""Keys that name files or folders."""
_ALONG = {"suite", "eval_every", "eval_data"}
"""Of a benchmark along the way, which changes nothing of what is trained."""


def read_training(content: dict[str, Any], name: str, top: Top) -> Training:
    """Return the sections; texts to copy may not overlap with the corpus, unless other texts are named.

    Args:
        content: what is written.
        name: of the stage.
        top: what holds for all stages.

    Raises:
        UserError: an unknown key, a value that is not possible.
    """
    check_keys(content, SECTIONS, name)
    data = inside(content, "data", name)
    local = [text for text in top.corpus if not text.startswith("hub:")]
    own = inherited(top) | ({"exclude": local} if data.get("copy") or data.get("continuations") else {})
    train = checked(SECTIONS["train"], inside(content, "train", name), f"{name}.train")
    train = {key: value for key, value in train.items() if value is not None}
    try:
        choose_recipe(train["recipe"], _changes(train))
    except UserError as error:
        raise UserError(f"{name}.train: {error}") from None
    return {"data": checked(SECTIONS["data"], data, f"{name}.data", own), "train": train}


def add_training(
    study: Study,
    result: Model,
    training: Training,
    model: str,
    answering: str,
    *,
    needs: Sequence[str] = (),
    asked: Sequence[str] = (),
    outside: Sequence[str] = (),
    answers: Sequence[str] = (),
) -> None:
    """Add the two steps.

    Args:
        study: gets the steps.
        result: the model that they make; its step's name is the stage's.
        training: see `Training`.
        model: what is trained; made by the steps `needs`, or from `outside`.
        answering: the model that answers prompts; made by the steps `asked`, or from outside (`answers`).
        needs: see `model`.
        asked: see `answering`.
        outside: see `model`.
        answers: see `answering`.
    """
    name, train = str(result.step), training["train"]
    chats = chats_file(study.output, name)

    def run(talk: Talk) -> None:
        with talk.stage(f"{name}: training") as progress:
            calibrate(model, chats, Path(result.source), warn=talk.warn, progress=progress, **train)

    add_chats(study, name, training["data"], answering, asked=asked, answers=answers)
    study.add(
        name, name, result.source, run, needs=[*needs, f"{name}-data"], inputs=outside,
        settings={key: value for key, value in train.items() if key not in _ALONG},
        work=[sibling(Path(result.source), ending) for ending in (".training", ".runs")], model=True,
    )  # fmt: skip


def chats_file(output: Path, name: str) -> Path:
    """Return where the chats of a stage lie."""
    return output.absolute() / f"{name}-data" / "chats.jsonl"


def add_chats(
    study: Study,
    name: str,
    data: Mapping[str, Any],
    answering: str,
    *,
    asked: Sequence[str] = (),
    answers: Sequence[str] = (),
) -> None:
    """Add the step that makes the chats of a stage.

    Args:
        study: gets the step, `NAME-data`.
        name: of the stage.
        data: the section `data`.
        answering: see `add_training`, as the rest.
        asked: see `answering`.
        answers: see `answering`.
    """
    chats = chats_file(study.output, name)

    def make(talk: Talk) -> None:
        with talk.stage(f"{name}: answers and grades") as progress:
            make_data(answering, output=chats, force=True, progress=progress, **data)

    # A key that recipes did not always have counts where it is used, so that older studies stay done.
    counted = {key: value for key, value in data.items() if key != "continuations" or value}
    own = data["answers"] or not data["prompts"]
    # Answers stay in the journal beside the chats, for other settings too.
    study.add(
        f"{name}-data", name, chats.with_suffix(".report.json"), make, needs=[] if own else asked,
        inputs=[*([] if own else answers), *named_files(data)], settings=counted, work=[chats],
    )  # fmt: skip


def needed_files(training: Training | None) -> list[str]:
    """Return the texts that chats are made from."""
    return named_texts((training or {}).get("data", {}))


def named_texts(data: Mapping[str, Any]) -> list[str]:
    """Return the texts that a section `data` names."""
    return [str(file) for key in ("prompts", "copy_corpus", "exclude") for file in data.get(key, ())]


def training_prices(name: str, training: Training | None, costs: Costs, rows: int) -> dict[str, Price]:
    """Return the prices of the two steps.

    An example is at most its prompt (taken for 100 tokens) and `max_tokens`, a text to copy its length twice, one to write on
    its length.

    Args:
        name: of the stage.
        training: see `Training`.
        costs: the base model's sizes.
        rows: of the model's embedding.
    """
    if training is None:
        return {}
    data, train, shape = training["data"], training["train"], costs.shape
    recipe = choose_recipe(train["recipe"], _changes(train))
    disk = 2.0 * shape.bytes(rows) + 2 * 12.0 * shape.embedding(rows)
    memory = _memory(recipe, train["dtype"], costs, rows)
    shorter = recipe.model_copy(update={"max_length": min(recipe.max_length, 1024)})
    smaller = Instead(f"{name}.train.max_length={shorter.max_length}", _memory(shorter, train["dtype"], costs, rows))
    made = chats_price(name, data, costs, rows)
    prompts = _prompts(data)
    if prompts is None:
        return {name: Price(bytes=disk, memory=memory, trains=True, instead=(smaller,))}
    texts = (2 * data["copy"] + data["continuations"]) * sum(data["copy_characters"]) / 2 / 2.0
    examples = prompts + data["copy"] + data["continuations"]
    tokens = prompts * float(100 + min(data["max_tokens"], recipe.max_length)) + texts
    share = recipe.epochs
    if recipe.max_steps is not None and examples:
        share = min(share, recipe.max_steps * recipe.batch / examples)
    return made | {
        name: Price(
            tokens * share, tokens * share * shape.training(rows, "lora"), disk, memory, trains=True, instead=(smaller,)
        ),
    }


def chats_price(name: str, data: Mapping[str, Any], costs: Costs, rows: int) -> dict[str, Price]:
    """Return the price of the step `NAME-data`; none where its prompts cannot be read.

    Args:
        name: of the stage.
        data: the section `data`.
        costs: the base model's sizes.
        rows: of the answering model's embedding.
    """
    prompts, shape = _prompts(data), costs.shape
    if prompts is None:
        return {}
    answers = 0.0 if data["answers"] else prompts * float(100 + data["max_tokens"])
    graded = prompts * float(400 + data["max_tokens"]) if data["judge"] else 0.0
    memory = reading(shape, rows, shape.width)
    return {f"{name}-data": Price(answers + graded, (answers + graded) * shape.forward(rows), 0.0, memory)}


def _prompts(data: Mapping[str, Any]) -> int | None:
    """The number of prompts; None where they cannot be read."""
    from lep.calibration.prompts import read_prompts

    try:
        prompts = sum(1 for file in data["prompts"] for _ in read_prompts(Path(file)))
    except DarumeruError:
        return None
    return prompts if data["limit"] is None else min(prompts, data["limit"])


def _memory(recipe: TrainingRecipe, dtype: str, costs: Costs, rows: int) -> float:
    wide = dtype == "float32" or (dtype == "auto" and not costs.gpu)
    return chats(
        costs.shape, rows, whole=recipe.train_embeddings or recipe.train_head, tokens=recipe.max_length,
        width=4 if wide else 2, checkpointing=costs.gpu, rank=recipe.lora_rank,
    )  # fmt: skip


def _changes(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the named recipe that the section `train` changes."""
    return {key: value for key, value in train.items() if key in TrainingRecipe.model_fields}
