"""Benchmark, held-out texts, speed and examples of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from darumeru.errors import DarumeruError
from darumeru.evaluation import Settings
from darumeru.options import Option
from darumeru.scoring.bits import PIECE
from darumeru.settings import as_before
from lep.pipeline import measures
from lep.pipeline.memory import reading
from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Top, checked, inside, of_model, one_of
from lep.pipeline.stage import Model, Recipe, Stage, Study, Talk, inherited, named_files
from lep.pipeline.stages.calibrate import calibrate
from lep.pipeline.stages.init import init
from lep.pipeline.stages.instruct import instruct
from lep.pipeline.stages.pretrain import CONTROL, pretrain
from lep.pipeline.stages.propagate import propagate

_MAKERS: tuple[Stage[Any], ...] = (init, pretrain, instruct, propagate, calibrate)
KINDS = ("base", CONTROL, *(str(stage.kind) for stage in _MAKERS))
"""Kinds of models that may be evaluated."""
_KINDS: Any = tuple[one_of(lambda: KINDS), ...]  # type: ignore[misc]


class EvaluateStage(Stage[dict[str, Any]]):
    """See the module."""

    name = "evaluate"
    help = "Benchmark (as darumeru run), held-out texts, speed and examples of the models."
    schema = of_model(
        "evaluate",
        Settings,
        "model revision adapter tokenizer training base_url api_key_env served_model approximate",
        {"models": (Annotated[_KINDS, Option("Which models are evaluated; the original always is.")], KINDS)},
    )
    paths = frozenset({"chats", "data", "lock", "wording", "include_path", "corpus"})

    def read(self, content: Mapping[str, Any], top: Top) -> dict[str, Any]:
        """Return the settings of `darumeru.evaluate`, and `models`."""
        return checked(self.schema, inside(content, self.name), self.name, inherited(top))

    def add_steps(self, study: Study) -> None:
        """Add benchmark and held-out texts for each model; speed and examples for the original and those to replace it."""
        direct, original = study.recipe.direct, study.original
        chosen = [m for m in study.models.values() if m.kind in study.recipe[self]["models"] or m is original]
        for model in chosen:
            self._add_benchmark(study, model)
            self._add_held_out(study, model)
        adapted = [m for m in chosen if m.kind == (pretrain.kind if direct else propagate.kind)][:1]
        shown = [original, *adapted, *(m for m in chosen if m.kind == calibrate.kind)]
        if study.recipe.report.chats is not None:
            chatting = [m for m in chosen if direct or m.kind in (instruct.kind, propagate.kind, calibrate.kind)]
            self._add_chats(study, chatting, study.recipe.report.chats)
        if len(shown) > 1:
            self._add_speed(study, shown)
        if study.recipe.report.examples:
            self._add_examples(study, shown)

    def _add_benchmark(self, study: Study, model: Model) -> None:
        settings = _settings(study.recipe)
        output = _output(study, f"run-{model.id}")

        def run(talk: Talk) -> None:
            # The first point of the curve of `darumeru watch`; a benchmark inside the training has its own step 0.
            first = model.kind == init.kind and study.recipe[pretrain].suite is None
            start = {"run": study.steps["pretrain"].output.name, "step": 0} if first else None
            with talk.stage(f"{model.title}: {settings['suite']}") as progress:
                measures.benchmark(
                    model.source, {**settings, "training": start}, study.output / "runs", output, progress
                )  # fmt: skip

        study.add(
            f"run-{model.id}", self.name, output, run, needs=[model.step] if model.step else [],
            inputs=[*([] if model.step else [model.source]), *named_files(settings)], settings=settings,
        )  # fmt: skip

    def _add_held_out(self, study: Study, model: Model) -> None:
        top, characters = study.recipe.top, study.recipe.report.characters
        output = _output(study, f"text-{model.id}")

        def run(talk: Talk) -> None:
            measures.held_out(
                model.source, study.base, study.held_out, output, field=top.field, characters=characters,
                device=_settings(study.recipe)["device"],
            )  # fmt: skip

        study.add(
            f"text-{model.id}", self.name, output, run, needs=[model.step] if model.step else [],
            inputs=[*([] if model.step else [model.source]), study.base, *top.held_out.values()],
            settings={"characters": characters, "names": list(top.held_out), "piece": PIECE},
        )  # fmt: skip

    def _add_chats(self, study: Study, models: Sequence[Model], conversations: str) -> None:
        limit, device = study.recipe.report.chat_characters, _settings(study.recipe)["device"]
        output = _output(study, "chats")

        def run(talk: Talk) -> None:
            with talk.stage("Chats") as progress:
                measures.chats(
                    {m.id: m.source for m in models},
                    conversations,
                    output,
                    limit=limit,
                    device=device,
                    progress=progress,
                )

        study.add(
            "chats", self.name, output, run, needs=_made(models), inputs=[*_given(models), conversations],
            settings={"limit": limit},
        )  # fmt: skip

    def _add_speed(self, study: Study, models: Sequence[Model]) -> None:
        top, tokens, engine = study.recipe.top, study.recipe.report.speed_tokens, _engine(study.recipe)
        output = _output(study, "speed")

        def run(talk: Talk) -> None:
            with talk.stage("Speed") as progress:
                measures.speed(
                    {m.id: m.source for m in models}, study.held_out, engine, output, field=top.field, tokens=tokens,
                    progress=progress,
                )  # fmt: skip

        study.add(
            "speed", self.name, output, run, needs=_made(models), inputs=[*_given(models), *top.held_out.values()],
            settings={"tokens": tokens, **engine},
        )  # fmt: skip

    def _add_examples(self, study: Study, models: Sequence[Model]) -> None:
        shown, engine = study.recipe.report, _engine(study.recipe)
        output = _output(study, "examples")

        def run(talk: Talk) -> None:
            with talk.stage("Examples") as progress:
                measures.examples(
                    {m.id: m.source for m in models}, shown.examples, engine, output, tokens=shown.max_tokens,
                    progress=progress,
                )  # fmt: skip

        study.add(
            "examples", self.name, output, run, needs=_made(models), inputs=_given(models),
            settings={"prompts": list(shown.examples), "tokens": shown.max_tokens, **engine},
        )  # fmt: skip

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the prices of benchmark and held-out texts of every model; tokens are counted with the old vocabulary."""
        from darumeru.evaluation import prepare, settings_of
        from darumeru.inference import answer_tokens

        shown, texts = recipe.report, len(recipe.top.held_out)
        tokens: float | None = None
        if recipe[self]["data"] != "hub":
            try:
                plan = prepare(settings_of(model=costs.base, **_settings(recipe)))
                tokens = float(sum(r.prompt_tokens + answer_tokens(r) for r in plan.requests))
            except DarumeruError as error:
                costs.missing.append(f"for the benchmark: {error}")
        else:
            costs.missing.append("the length of a benchmark on the hub: tokens of evaluate are not estimated")
        text = float(texts * shown.characters)
        told = 3 * len(shown.examples) * float(100 + shown.max_tokens)
        wrote = 3 * 8 * texts * float(60 + shown.speed_tokens)
        each = costs.shape.forward(costs.rows)
        stored, exact = (
            reading(costs.shape, costs.rows, width) for width in (costs.shape.width, 2 if costs.gpu else 4)
        )
        prices = {
            "examples": Price(told, told * each, 0.0, stored), "speed": Price(wrote, wrote * each, 0.0, stored)
        }  # fmt: skip
        old = [("base", costs.shape.forward(costs.shape.rows))]
        made = [(m.id, old[0][1] if m.kind in (instruct.kind, CONTROL) else each)
                for stage in _MAKERS for m in stage.models(recipe, costs.output)]  # fmt: skip
        for model, flop in [*old, *made]:
            prices[f"run-{model}"] = Price(tokens, None if tokens is None else tokens * flop, 0.0, stored)
            prices[f"text-{model}"] = Price(text, text * flop, 0.0, exact)
        return prices


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of `darumeru.evaluate`."""
    return as_before({key: value for key, value in recipe[evaluate].items() if key != "models"})


def _engine(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that decide how fast a model writes, and what."""
    shared = ("engine", "dtype", "device", "model_args", "seed", "exact", "max_prompt_len")
    return {key: recipe[evaluate][key] for key in shared}


def _output(study: Study, name: str) -> Path:
    return study.output / "measures" / f"{name}.json"


def _made(models: Sequence[Model]) -> list[str]:
    return list(dict.fromkeys(m.step for m in models if m.step))


def _given(models: Sequence[Model]) -> list[str]:
    return [m.source for m in models if not m.step]


evaluate = EvaluateStage()
