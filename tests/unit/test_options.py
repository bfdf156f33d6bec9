"""Options made from classes and signatures: what the command line shows, hands on and refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from darumeru.errors import UserError
from darumeru.options import Command, Option, deciding, settings_model, validated, with_options, yaml_template


class Loading(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Option("Model folder.")]
    dtype: Annotated[Literal["auto", "float32"], Option("Of computation.")] = "auto"
    limit: Annotated[int | None, Option("Documents.", default="all")] = Field(None, ge=1)
    tasks: Annotated[tuple[str, ...], Option("Only these.", many="comma")] = ()
    folders: Annotated[tuple[Path, ...], Option("More of them.")] = ()
    model_args: Annotated[dict[str, Any], Option("Of the engine.", many="comma")] = {}
    exact: Annotated[bool, Option("Repeatable numbers.")] = False
    once: Annotated[bool, Option("And end.", flag="--just-once", decides=False)] = False
    batch: Annotated[int, Option("Rows at once.", decides=False)] = 8


def extend(
    model: Annotated[str, Option("Model folder.")],
    corpus: Annotated[Sequence[str | Path], Option("Texts.", many="spread", metavar="FILE")],
    output: Annotated[str | Path, Option("Folder to write.", decides=False)],
    *,
    add: Annotated[int, Option("New tokens to append."), Field(ge=1)],
    scripts: Annotated[Sequence[str] | None, Option("Unicode scripts.", default="those of --lang")] = None,
    lang: str = "ru",
    held_out: Annotated[dict[str, str], Option("Name and text.")] = {},  # noqa: B006
    progress: "Callable[[NoSuchType], None] | None" = None,  # type: ignore[name-defined] # noqa: F821
    **rest: Any,
) -> None:
    """A function whose signature is its configuration."""


def command(source: Any, cls: Any = None, **how: Any) -> tuple[typer.Typer, list[dict[str, Any]]]:
    """A program with one command, and what that command was handed."""
    app, handed = typer.Typer(rich_markup_mode=None, add_completion=False), []

    @app.command(cls=cls)
    @with_options(source, **how)
    def run(settings: dict[str, Any], loud: Annotated[bool, typer.Option("--loud", help="Say more.")] = False) -> None:
        handed.append({**settings, "loud": loud})

    return app, handed


def call(app: typer.Typer, *args: str) -> Any:
    return CliRunner().invoke(app, args)


def test_a_class_becomes_options() -> None:
    app, handed = command(Loading)
    done = call(
        app, "--model", "m", "--dtype", "float32", "--limit", "3", "--tasks", "a,b", "--tasks", "c", "--folders", "x,y",
        "--model-args", "batch-tokens=5,fast=true,name=z", "--exact", "--loud",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert handed == [{
        "model": "m", "dtype": "float32", "limit": 3, "tasks": ("a", "b", "c"), "folders": (Path("x,y"),),
        "model_args": {"batch_tokens": 5, "fast": True, "name": "z"}, "exact": True, "once": False, "batch": 8, "loud": True,
    }]  # fmt: skip


def test_what_is_not_given_has_the_class_default() -> None:
    app, handed = command(Loading, defaults={"batch": 2, "dtype": "float32"}, without=("exact", "once"))
    assert call(app, "--model", "m").exit_code == 0
    assert handed == [{
        "model": "m", "dtype": "float32", "limit": None, "tasks": (), "folders": (), "model_args": {}, "batch": 2,
        "loud": False,
    }]  # fmt: skip


def test_help_says_description_default_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = " ".join(call(command(Loading)[0], "--help").output.split())
    assert "--model <str> Model folder. [required]" in shown
    assert "--dtype [auto|float32] Of computation. [default: auto]" in shown
    assert "Documents. [default: (all)]" in shown
    assert "--exact / --no-exact" in shown
    assert "--model-args KEY=VALUE" in shown
    assert "--loud" in shown


def test_prefix_and_only() -> None:
    app, handed = command(Loading, prefix="judge_", only=("dtype", "limit", "once"))
    assert call(app, "--judge-dtype", "float32", "--judge-just-once").exit_code == 0
    assert handed == [{"judge_dtype": "float32", "judge_limit": None, "judge_once": True, "loud": False}]
    error = call(app, "--judge-dtype", "int8").exception
    assert isinstance(error, UserError)
    assert str(error) == "--judge-dtype: 'int8' is not possible. Input should be 'auto' or 'float32'."


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--limit", "0"), "--limit: 0 is not possible. Input should be greater than or equal to 1."),
        (("--model-args", "x"), "--model-args 'x' is not of the form key=value."),
    ],
)
def test_an_impossible_value_is_named_in_one_sentence(args: tuple[str, ...], message: str) -> None:
    error = call(command(Loading)[0], "--model", "m", *args).exception
    assert isinstance(error, UserError)
    assert str(error) == message


def test_a_signature_becomes_options() -> None:
    app, handed = command(extend, Command, without="progress")
    done = call(
        app, "--model", "m", "--corpus", "a.txt", "b.txt", "--output", "o", "--corpus", "c.txt", "--add", "5",
        "--held-out", "ru=x=y",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert list(handed[0].pop("corpus")) == ["a.txt", "b.txt", "c.txt"]
    assert handed == [{
        "model": "m", "output": "o", "add": 5, "scripts": None, "lang": "ru", "held_out": {"ru": "x=y"}, "loud": False,
    }]  # fmt: skip
    assert call(app, "--model", "m", "--output", "o", "--corpus", "a").exit_code == 2, "--add is missing"


def test_a_signature_becomes_a_strict_class() -> None:
    made = settings_model("vocab.extend", extend, "model corpus output progress", methods=(tuple[str, ...], ("a",)))
    settings = made(add=3)
    assert settings.model_dump() == {"add": 3, "scripts": None, "lang": "ru", "held_out": {}, "methods": ("a",)}
    with pytest.raises(UserError, match=r"^vocab\.add: 0 is not possible\. .*greater than or equal to 1\.$"):
        validated(made, {"add": 0}, named=lambda name: f"vocab.{name}")
    with pytest.raises(UserError, match=r"^vocab\.add is missing\.$"):
        validated(made, {}, named=lambda name: f"vocab.{name}")
    with pytest.raises(UserError, match=r"Unknown key 'langs'\. Did you mean 'lang'"):
        validated(made, {"add": 1, "langs": "ru"}, what="key")


def test_only_what_decides_the_result() -> None:
    given = deciding(Loading(model="m", folders=(Path("x"),), batch=3))
    assert given == {
        "model": "m", "dtype": "auto", "limit": None, "tasks": [], "folders": ["x"], "model_args": {}, "exact": False,
    }  # fmt: skip


def test_a_name_that_the_source_lacks_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="Loading has no setting tokens"):
        with_options(Loading, without=("tokens",))


def test_a_template_reads_back_to_the_defaults() -> None:
    text = yaml_template(Loading, without="model")
    assert "# Of computation.\ndtype: auto\n" in text
    assert "limit: null  # all\n" in text
    assert Loading(model="m", **yaml.safe_load(text)) == Loading(model="m")
    assert "  model:  # required\n" in yaml_template(Loading, indent=2)
