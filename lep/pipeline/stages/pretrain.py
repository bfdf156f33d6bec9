"""The new embeddings trained on the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from darumeru.data.texts import read_all
from darumeru.errors import DarumeruError
from darumeru.options import Option
from darumeru.processor import slow_here
from lep.model.checkpoint import locate
from lep.pipeline.memory import trained_values, training
from lep.pipeline.price import Costs, Instead, Price
from lep.pipeline.sections import Top, checked, inside
from lep.pipeline.stage import Model, Recipe, Stage, Study, Talk, inherited
from lep.pipeline.stages.chats import chats
from lep.pretraining.control import control_folder, control_settings, train_control
from lep.pretraining.data import forgotten
from lep.pretraining.replay import parse_replay
from lep.pretraining.schedule import parse_schedule
from lep.pretraining.settings import PretrainSettings

CONTROL = "control"
"""The step that trains the base in its own vocabulary."""

_SAMPLE = 10_000
"""Characters of a held-out text that tell its script."""
_CHARACTERS = 100_000_000
"""Characters of the corpus that are counted; longer ones are taken for this long, and said."""


class Settings(PretrainSettings):
    """Settings of the stage."""

    control: Annotated[
        bool,
        Option(
            "Train the base in its own vocabulary on as much text too; the report tells what the vocabulary costs.",
            decides=False,
        ),
    ] = False


class PretrainStage(Stage[Settings]):
    """See the module."""

    name = "pretrain"
    help = "The new embeddings trained on the corpus."
    schema = Settings
    paths = frozenset({"data", "replay"})
    kind = "base-new"

    def read(self, content: Mapping[str, Any], top: Top) -> Settings:
        """Return the settings of `lep.pretrain`, and whether there is a control.

        Raises:
            UserError: an unknown key, a value that is not possible, a control that has nothing to train.
        """
        settings = Settings(**checked(self.schema, inside(content, self.name), self.name, inherited(top)))
        parse_schedule(settings.train)
        parse_replay(settings.replay)
        if settings.control:
            control_settings(settings)
        return settings

    def add_steps(self, study: Study) -> None:
        """Add the one step."""
        settings, corpus = study.recipe[self], list(study.recipe.top.corpus)
        output, chatting = study.models[self.kind].source, chats.replay(study.recipe, study.output)
        whole = settings.model_copy(update={"replay": (*settings.replay, *chatting)})

        def run(talk: Talk) -> None:
            from lep.pretraining.job import pretrain

            pretrain(
                study.steps["init"].output, corpus, Path(output), held_out=study.held_out, original=study.base,
                settings=whole, warn=talk.warn,
            )  # fmt: skip

        replayed = [part.source for part in parse_replay(settings.replay)]
        study.add(
            self.name, self.name, output, run, needs=["init", *(["chats-data"] if chatting else [])],
            inputs=[*corpus, *replayed], settings=whole.of_the_result(), choice=whole.of_the_choice(), model=True,
            resumes=True,
        )  # fmt: skip
        if settings.control:
            self._add_control(study, Path(output), corpus, whole)

    def _add_control(self, study: Study, adapted: Path, corpus: Sequence[str], settings: PretrainSettings) -> None:
        held_out = study.held_out

        def run(talk: Talk) -> None:
            train_control(
                locate(study.base), corpus, adapted, held_out=held_out, settings=settings, warn=talk.warn
            )  # fmt: skip

        study.add(
            CONTROL, self.name, control_folder(adapted), run, needs=[self.name], inputs=[study.base],
            settings=settings.of_the_result(), choice=control_settings(settings).of_the_choice(), model=True, resumes=True,
        )  # fmt: skip

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return the trained model, behind its control where there is one."""
        lang = recipe.top.lang
        title = f"adapted ({lang})" if recipe.direct else f"base/{lang} (embeddings trained)"
        trained = Model(self.kind, title, self.kind, str(output / f"base-{lang}"), self.name)
        control = Model(CONTROL, "control (old vocabulary)", CONTROL, str(control_folder(trained.source)), CONTROL)
        return [control, trained] if recipe[self].control else [trained]

    def files(self, settings: Settings) -> list[str]:
        """Return the texts that are replayed."""
        return [part.source for part in parse_replay(settings.replay) if not part.source.startswith("hub:")]

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of the training; two checkpoints can be resumed from."""
        s, rows = recipe[self], costs.rows
        costs = replace(costs, shape=replace(costs.shape, tied=costs.shape.tied and not s.untie))
        shape = costs.shape
        there = {name: file for name, file in recipe.top.held_out.items() if Path(file).is_file()}
        beginnings = {name: read_all([file], field=s.field, limit=_SAMPLE) for name, file in there.items()}
        costs.notes.extend(forgotten(s, beginnings))
        if not costs.gpu and (slow := slow_here(s.dtype)):
            costs.notes.append(slow)
        tokens: float | None
        if s.max_steps > 0:
            tokens = float(s.max_steps * s.total_batch_size * s.block_size)
            steps: float | None = s.max_steps
        else:
            corpus = _corpus_tokens(recipe.top, costs)
            # What is replayed comes on top of the passes over the corpus.
            share = 1 - sum(part.share for part in parse_replay(s.replay))
            tokens = None if corpus is None else corpus * s.num_train_epochs / share
            steps = None if tokens is None else tokens / s.block_size / s.total_batch_size
        each = sum(share * shape.training(rows, what) for what, share in parse_schedule(s.train))
        saved = 0 if steps is None else max(1, round(steps / s.save_steps))
        kept = min(saved, s.save_total_limit or saved)
        parts = [
            trained_values(shape, rows, what, new=costs.new, rank=s.lora_rank) for what, _ in parse_schedule(s.train)
        ]

        def disk(kept: int) -> float:
            # float32 weights and two moments lie beside the model of a checkpoint that can be resumed from.
            return shape.bytes(rows) * (kept + 1) + 12.0 * max(parts) * min(kept + 1, 3)

        fewer = [Instead("pretrain.save_total_limit=2", bytes=disk(2))] if kept > 2 else []
        price = Price(
            tokens,
            None if tokens is None else tokens * each,
            disk(kept),
            _memory(s, costs),
            trains=True,
            instead=(*fewer, *_smaller(s, costs)),
        )
        # The control's tokens are shorter, by a ratio that is not known before there is a vocabulary.
        return {self.name: price} | ({CONTROL: price} if s.control else {})


def _memory(s: PretrainSettings, costs: Costs) -> float:
    wide = s.dtype == "float32" or (s.dtype == "auto" and not costs.gpu)
    return max(
        training(
            costs.shape, costs.rows, what, new=costs.new, tokens=s.per_device_train_batch_size * s.block_size,
            width=4 if wide else 2, checkpointing=s.gradient_checkpointing, rank=s.lora_rank,
            # On a CPU bitsandbytes keeps so much beside its weights that nothing is saved (`benchmarks/memory.py`).
            quantize=s.quantize if costs.gpu else "none",
        )
        for what, _ in parse_schedule(s.train)
    )  # fmt: skip


def _smaller(s: PretrainSettings, costs: Costs) -> list[Instead]:
    """Return what would need less memory, the mildest first, each with those before it."""
    changes: dict[str, Any] = {
        "gradient_checkpointing": True, "dtype": "bfloat16", "per_device_train_batch_size": 1, "quantize": "8bit",
        "train": "new-rows+lora",
    }  # fmt: skip
    if s.quantize == "4bit" or not costs.gpu:
        changes.pop("quantize")
    found, done = [], {}
    for key, value in changes.items():
        if getattr(s, key) != value:
            done[key] = value
            text = " ".join(f"pretrain.{name}={str(v).lower()}" for name, v in done.items())
            found.append(Instead(text, _memory(s.model_copy(update=done), costs)))
    return found


def _corpus_tokens(top: Top, costs: Costs) -> float | None:
    """Return the tokens of the corpus: its characters, times the tokens per character of its first texts."""
    from darumeru.data.texts import read_texts
    from lep.tokenizer.vocabulary import Vocabulary

    folder = costs.output / "tokenizer"
    files = [f for f in top.corpus if not f.startswith("hub:")]
    if len(files) < len(top.corpus):
        costs.missing.append("the length of a corpus on the hub: tokens of pretrain are not estimated")
        return None
    if not all(Path(file).is_file() for file in files):
        return None
    try:
        vocabulary = Vocabulary.load(folder if (folder / "lep.json").is_file() else costs.base)
    except DarumeruError:
        return None
    characters, sample = 0, ""
    for text in read_texts(files, field=top.field):
        characters += len(text)
        if len(sample) < 200_000:
            sample += text
        if characters > _CHARACTERS:
            costs.notes.append(f"Only the first {_CHARACTERS:,} characters of the corpus were counted: it is longer.")
            break
    ids = vocabulary.tokenizer.encode(sample, add_special_tokens=False).ids
    return characters * len(ids) / max(len(sample), 1)


pretrain = PretrainStage()
