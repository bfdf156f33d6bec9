"""The steps of a recipe: what each computes from what, where, and the key that tells whether it is done.

A step's key is a fingerprint of its settings and of its inputs: keys of other steps, contents of files. So a changed
setting gives new keys to exactly the steps that depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.scoring.bits import PIECE
from lep.model.folders import files_fingerprint, folder_fingerprint
from lep.pipeline.recipe import PACKAGE, Recipe, exists

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

STAGES = ("vocab", "init", "pretrain", "instruct", "propagate", "calibrate", "evaluate")
_NOT_RESULT = {"device", "save_every", "suite", "eval_every", "eval_data", "link"}
"""Settings that change how a step goes, not what comes out."""


@dataclass(frozen=True)
class Talk:
    """How a step says what it does: `stage(title)` gives a progress bar, `warn(sentence)` a warning."""

    stage: Callable[[str], AbstractContextManager[Progress | None]]
    warn: Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """Something that is computed, once.

    Attributes:
        name: unique, such as `propagate-swap`.
        stage: of the pipeline.
        output: what it writes: a folder with a manifest, or a file.
        work: further files and folders of its own, gone when it begins anew.
        needs: steps that must be done before.
        given: names of the models and files from outside that it reads.
        settings: what the result depends on, as JSON.
        key: see above.
        run: does it; the same call goes on where it was stopped.
        model: whether the output is a model folder.
    """

    name: str
    stage: str
    output: Path
    work: tuple[Path, ...]
    needs: tuple[str, ...]
    given: tuple[str, ...]
    settings: Mapping[str, Any]
    key: str
    run: Callable[[Talk], Any]
    model: bool = False

    @property
    def whole(self) -> bool:
        """Whether the output is there."""
        return self.output.is_file() or (self.output / "lep.json").is_file()


@dataclass(frozen=True)
class Model:
    """A model that is evaluated.

    Attributes:
        id: in names of files.
        title: in the report.
        kind: one of `recipe.MODELS`.
        source: folder or hub id.
        step: that makes it; None where it is given.
    """

    id: str
    title: str
    kind: str
    source: str
    step: str | None


def source_of(name: str, output: Path) -> str:
    """A model of the recipe as a folder or hub id; the product's demo model has its folder in the output."""
    from darumeru.demo import NAME

    return str(output / "models" / NAME) if name == PACKAGE else name


def models_of(recipe: Recipe, output: Path) -> list[Model]:
    """All models, originals first."""
    lang, top = recipe.top.lang, recipe.top
    base = source_of(top.base, output)
    made = recipe.instruct is not None
    models = [
        Model("base", "base", "base", base, None),
        Model("base-new0", f"base/{lang}⁰ (initialised)", "base-new0", str(output / f"base-{lang}0"), "init"),
        Model("base-new", f"base/{lang} (embeddings trained)", "base-new", str(output / f"base-{lang}"), "pretrain"),
        Model("instruct", "instruct (original)", "instruct",
              str(output / "instruct") if made else source_of(top.instruct, output), "instruct" if made else None),
        *(Model(f"instruct-{m}", f"instruct/{lang}, {m}", "propagated", str(output / f"instruct-{lang}-{m}"),
                f"propagate-{m}") for m in recipe.propagate["methods"]),
    ]  # fmt: skip
    if recipe.calibrate is not None:
        title = f"instruct/{lang}, {recipe.propagate['methods'][0]}, calibrated"
        models.append(
            Model("calibrated", title, "calibrated", str(output / f"instruct-{lang}-calibrated"), "calibrate")
        )
    return models


def steps_of(recipe: Recipe, output: Path) -> list[Step]:
    """All steps in an order in which they can be done."""
    return _Steps(recipe, output.absolute()).all()


class _Steps:
    def __init__(self, recipe: Recipe, output: Path) -> None:
        self.recipe, self.output, self.top = recipe, output, recipe.top
        self.steps: dict[str, Step] = {}
        self.files: dict[str, str] = {}
        self.models = {model.id: model for model in models_of(recipe, output)}
        self.base, self.instruct = self.models["base"].source, self.models["instruct"].source
        self.held_out = [f"{name}={file}" for name, file in self.top.held_out.items()]

    def add(
        self,
        name: str,
        stage: str,
        output: Path | str,
        run: Callable[[Talk], Any],
        *,
        needs: Sequence[str] = (),
        inputs: Sequence[str] = (),
        settings: Mapping[str, Any],
        work: Sequence[Path] = (),
        model: bool = False,
    ) -> None:
        """A further step; `inputs` are models, files and hub ids from outside."""
        from darumeru.files import fingerprint as of_json

        plain = _plain({key: value for key, value in settings.items() if key not in _NOT_RESULT})
        known = [self.steps[need].key for need in needs] + [self.outside(source) for source in inputs]
        self.steps[name] = Step(
            name, stage, Path(output), tuple(work), tuple(needs), tuple(dict.fromkeys(Path(s).name for s in inputs)), plain,
            of_json([name, plain, known]), run, model,
        )  # fmt: skip

    def outside(self, source: str) -> str:
        """What a file, folder or hub id holds, as far as it can be told without fetching anything."""
        if source not in self.files:
            path = Path(source)
            found = (
                folder_fingerprint(path) if path.is_dir() else files_fingerprint([path]) if path.is_file() else source
            )
            demo = source_of(PACKAGE, self.output)
            self.files[source] = PACKAGE if source == demo else found
        return self.files[source]

    def all(self) -> list[Step]:
        from lep.initialisation.strategy import find as find_strategy

        recipe, out, lang, field = self.recipe, self.output, self.top.lang, self.top.field
        corpus = list(self.top.corpus)
        self.add(
            "vocab", "vocab", out / "tokenizer",
            lambda _: self._vocab(), inputs=[self.base, *corpus, *_paths(recipe.vocab)],
            settings={"way": recipe.way, "lang": lang, **recipe.vocab},
        )  # fmt: skip
        compares = "corpus" in find_strategy(recipe.init["strategy"]).settings and not recipe.init["donor"]
        self.add(
            "init", "init", self.models["base-new0"].source, lambda talk: self._init(talk, corpus if compares else []),
            needs=["vocab"], inputs=[self.base, *(corpus if compares else []), *_paths(recipe.init)],
            settings=recipe.init, model=True,
        )  # fmt: skip
        self.add(
            "pretrain", "pretrain", self.models["base-new"].source, lambda talk: self._pretrain(talk, corpus),
            needs=["init"], inputs=corpus, settings=recipe.pretrain.of_the_result(), model=True,
        )  # fmt: skip
        made, given = ([], [self.instruct]) if recipe.instruct is None else (["instruct"], [])
        if recipe.instruct is not None:
            self._training("instruct", recipe.instruct, self.base, self.base, outside=[self.base], answers=[self.base])
        for method in recipe.propagate["methods"]:
            self.add(
                f"propagate-{method}", "propagate", self.models[f"instruct-{method}"].source,
                partial(self._propagate, method), needs=["pretrain", *made],
                inputs=[self.base, *given, *(self.top.held_out.values() if method == "auto" else [])],
                settings={"method": method, **({"strength": recipe.propagate["strength"]} if _has(method, "strength") else {}),
                          **({"field": field} if method == "auto" else {})},
                model=True,
            )  # fmt: skip
        if recipe.calibrate is not None:
            first = self.models[f"instruct-{recipe.propagate['methods'][0]}"]
            assert first.step is not None  # noqa: S101 - every propagated model is made
            self._training(
                "calibrate",
                recipe.calibrate,
                first.source,
                self.instruct,
                asked=made,
                needs=[first.step],
                answers=given,
            )
        self._evaluate(given)
        return list(self.steps.values())

    # -- stages -------------------------------------------------------------------------------------------------------

    def _vocab(self) -> None:
        from lep.vocab.commands import extend_vocabulary, optimize_vocabulary, swap_vocabulary
        from lep.vocab.train import train_vocabulary

        recipe = self.recipe
        ways: dict[str, Callable[..., Any]] = {
            "extend": extend_vocabulary, "optimize": optimize_vocabulary, "swap": swap_vocabulary,
            "train": train_vocabulary,
        }  # fmt: skip
        more = {} if recipe.way == "train" else {"lang": self.top.lang}
        ways[recipe.way](self.base, self.top.corpus, self.steps["vocab"].output, **more, **recipe.vocab)

    def _init(self, talk: Talk, corpus: Sequence[str]) -> None:
        from lep.initialisation.job import initialise

        output = self.steps["init"].output
        initialise(
            self.base, self.steps["vocab"].output, output, corpus=corpus, warn=talk.warn, **self.recipe.init
        )  # fmt: skip

    def _pretrain(self, talk: Talk, corpus: Sequence[str]) -> None:
        from lep.pretraining.job import pretrain

        pretrain(
            self.steps["init"].output, corpus, self.steps["pretrain"].output, held_out=self.held_out,
            settings=self.recipe.pretrain, warn=talk.warn,
        )  # fmt: skip

    def _propagate(self, method: str, talk: Talk) -> None:
        from lep.corpus.read import read_all
        from lep.propagation.job import propagate

        settings = {key: value for key, value in self.recipe.propagate.items() if key != "methods"}
        new = next(iter(self.top.held_out.values()))
        propagate(
            self.base, self.steps["pretrain"].output, self.instruct, self.models[f"instruct-{method}"].source,
            method=method, texts=read_all([new], field=self.top.field, limit=200_000) if method == "auto" else (),
            warn=talk.warn, **settings,
        )  # fmt: skip

    def _training(
        self,
        name: str,
        sections: Mapping[str, Mapping[str, Any]],
        model: str,
        answering: str,
        *,
        needs: Sequence[str] = (),
        asked: Sequence[str] = (),
        outside: Sequence[str] = (),
        answers: Sequence[str] = (),
    ) -> None:
        """The two steps of a calibration: chats, and the training of `model` on them.

        Args:
            name: of the training's step.
            sections: `data` and `train`.
            model: what is trained; made by the steps `needs`, or from `outside`.
            answering: the model that answers prompts; made by the steps `asked`, or from outside (`answers`).
            needs: see `model`.
            asked: see `answering`.
            outside: see `model`.
            answers: see `answering`.
        """
        from lep.calibration import calibrate, make_data

        chats = self.output / f"{name}-data" / "chats.jsonl"
        data, train = sections["data"], sections["train"]

        def chatting(talk: Talk) -> None:
            with talk.stage(f"{name}: answers and grades") as progress:
                make_data(answering, output=chats, force=True, progress=progress, **data)

        def training(talk: Talk) -> None:
            with talk.stage(f"{name}: training") as progress:
                calibrate(model, chats, self.steps[name].output, warn=talk.warn, progress=progress, **train)

        # Answers stay in the journal beside the chats, for other settings too.
        self.add(
            f"{name}-data", name, chats.with_suffix(".report.json"), chatting, needs=[] if data["answers"] else asked,
            inputs=[*([] if data["answers"] else answers), *_paths(data)], settings=data, work=[chats],
        )  # fmt: skip
        folder = next(m.source for m in self.models.values() if m.step == name)
        self.add(
            name, name, folder, training, needs=[*needs, f"{name}-data"], inputs=outside, settings=train,
            work=[Path(f"{folder}.training"), Path(f"{folder}.runs")], model=True,
        )  # fmt: skip

    def _evaluate(self, given: Sequence[str]) -> None:
        from lep.measure import study as measure

        recipe, folder = self.recipe, self.output / "measures"
        settings = {key: value for key, value in recipe.evaluate.items() if key != "models"}
        shared = ("engine", "dtype", "device", "model_args", "seed", "exact", "max_prompt_len")
        engine = {key: settings[key] for key in shared}
        texts = list(self.top.held_out.values())
        report = recipe.report.model_dump(mode="json")
        chosen = [m for m in self.models.values() if m.kind in recipe.evaluate["models"] or m.kind == "instruct"]
        for model in chosen:
            needs = [model.step] if model.step else []
            own = [] if model.step else [model.source]

            def run(talk: Talk, model: Model = model) -> None:
                # Where the curve of `darumeru watch` begins; the benchmark inside the training has its own step 0.
                first = model.kind == "base-new0" and recipe.pretrain.suite is None
                start = {"run": self.steps["pretrain"].output.name, "step": 0} if first else None
                with talk.stage(f"{model.title}: {settings['suite']}") as progress:
                    measure.benchmark(
                        model.source, {**settings, "training": start}, self.output / "runs",
                        folder / f"run-{model.id}.json", progress,
                    )  # fmt: skip

            def held_out(talk: Talk, model: Model = model) -> None:
                measure.held_out(
                    model.source, self.base, self.held_out, folder / f"text-{model.id}.json", field=self.top.field,
                    characters=recipe.report.characters, device=settings["device"],
                )  # fmt: skip

            self.add(
                f"run-{model.id}", "evaluate", folder / f"run-{model.id}.json", run, needs=needs,
                inputs=[*own, *_paths(settings)], settings=settings,
            )  # fmt: skip
            self.add(
                f"text-{model.id}", "evaluate", folder / f"text-{model.id}.json", held_out, needs=needs,
                inputs=[*own, self.base, *texts],
                settings={"characters": report["characters"], "names": list(self.top.held_out), "piece": PIECE},
            )  # fmt: skip
        last = [m for m in chosen if m.kind in ("propagated", "calibrated")]
        trio = [
            self.models["instruct"], *[m for m in last if m.kind == "propagated"][:1],
            *[m for m in last if m.kind == "calibrated"],
        ]  # fmt: skip
        steps = list(dict.fromkeys(m.step for m in trio if m.step))

        def speed(talk: Talk) -> None:
            with talk.stage("Speed") as progress:
                measure.speed(
                    {m.id: m.source for m in trio}, self.held_out, engine, folder / "speed.json", field=self.top.field,
                    tokens=recipe.report.speed_tokens, progress=progress,
                )  # fmt: skip

        def examples(talk: Talk) -> None:
            with talk.stage("Examples") as progress:
                measure.examples(
                    {m.id: m.source for m in trio}, recipe.report.examples, engine, folder / "examples.json",
                    tokens=recipe.report.max_tokens, progress=progress,
                )  # fmt: skip

        if len(trio) > 1:
            self.add(
                "speed", "evaluate", folder / "speed.json", speed, needs=steps, inputs=[*given, *texts],
                settings={"tokens": report["speed_tokens"], **engine},
            )  # fmt: skip
        if recipe.report.examples:
            self.add(
                "examples", "evaluate", folder / "examples.json", examples, needs=steps, inputs=given,
                settings={"prompts": report["examples"], "tokens": report["max_tokens"], **engine},
            )  # fmt: skip


def _has(method: str, setting: str) -> bool:
    from lep.propagation.method import AUTO, find

    return method != AUTO and setting in find(method).settings


def _plain(value: Any) -> Any:
    """A value as JSON has it; paths by their last part, since what is in them counts as an input."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("/") and exists(Path(value))):
        return Path(value).name
    return value


def _paths(settings: Mapping[str, Any]) -> list[str]:
    """The files and folders that settings name."""
    found: list[str] = []
    for value in settings.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, Path) or (isinstance(item, str) and item.startswith("/") and exists(Path(item))):
                found.append(str(item))
    return found
