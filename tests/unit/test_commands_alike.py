"""Commands that ask for the same thing spell it alike, and their help shows every option whole."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from click import Command, Group, Option
from typer.testing import CliRunner

from darumeru.arena.settings import ArenaSettings
from darumeru.cli import app
from darumeru.errors import UserError
from darumeru.settings import Settings, settings_of
from darumeru.watch.settings import WatchSettings

ROOT: Any = typer.main.get_command(app)


def commands(group: Group = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if isinstance(command, Group) or hasattr(command, "commands"):
            yield from commands(command, (*path, name))  # type: ignore[arg-type]
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def options(name: str) -> dict[str, Any]:
    return {p.opts[0]: p for p in COMMANDS[name,].params if getattr(p, "opts", [""])[0].startswith("--")}


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_help_shows_every_option_whole_in_80_columns(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*path, "--help"]).output
    assert not [line for line in shown.splitlines() if len(line) > 80]
    words = re.split(r"[\s,/]+", shown)
    for parameter in COMMANDS[path].params:
        for flag in [*parameter.opts, *parameter.secondary_opts]:
            assert not flag.startswith("-") or flag in words, flag
        for choice in re.findall(r"[a-z0-9]+", parameter.metavar or "") if isinstance(parameter, Option) else ():
            assert choice in shown
    assert "…" not in shown


DIFFERENT = {
    ("watch", "--suite"): "a smaller suite along the way",
    ("watch", "--engine"): "a checkpoint is a folder: no server",
    ("watch", "--device"): "a GPU of its own",
    ("arena", "--limit"): "prompts, not documents",
    ("arena", "--revision"): "one for each model",
    ("arena", "--base-url"): "one for each model",
    ("arena", "--served-model"): "one for each model",
    ("arena", "--output"): "arenas, not runs",
    ("arena", "--models"): "the models; a run reads them from a file",
    ("race", "--output"): "a race gets a folder too",
    ("watch", "--thinking-budget"): "one budget; a run takes several, one run each",
    ("arena", "--thinking-budget"): "one budget",
    ("race", "--thinking-budget"): "one budget",
}


@pytest.mark.parametrize("name", ["watch", "arena", "race", "demo"])
def test_the_same_option_has_the_same_help_and_default(name: str) -> None:
    reference, own = options("run"), options(name)
    told = {
        option
        for option in reference.keys() & own.keys()
        for a, b in [(reference[option], own[option])]
        if (a.help, a.default, a.metavar, a.multiple) != (b.help, b.default, b.metavar, b.multiple)
    }
    expected = {option for command, option in DIFFERENT if command == name}
    assert told == (expected if name != "demo" else {"--output", "--models"})


def test_what_holds_for_all_is_offered_by_all() -> None:
    reference = options("run").keys()
    of_a_model = {"--model", "--revision", "--adapter"}
    of_a_server = {"--base-url", "--served-model", "--api-key-env", "--approximate"}
    assert reference - options("watch").keys() == of_a_model | of_a_server | {
        "--models",
        "--dry-run",
        "--until",
        "--track",
        "--json",
    }
    of_tasks = {
        "--suite", "--tasks", "--data", "--lock", "--mode", "--num-fewshot", "--wording", "--include-path", "--likelihood",
        "--corpus",
    }  # fmt: skip
    of_drawn_answers = {"--sampling", "--temperature", "--top-p", "--top-k", "--min-p", "--repeats"}
    assert reference - options("arena").keys() == of_tasks | of_drawn_answers | {
        "--model",
        "--adapter",
        "--dry-run",
        "--until",
        "--track",
        "--workers",
        "--ray",
        "--devices-per-worker",
        "--stall",
    }
    for option in (
        "engine",
        "dtype",
        "model-args",
        "revision",
        "base-url",
        "served-model",
        "api-key-env",
        "approximate",
        "thinking",
        "thinking-budget",
        "think-end",
        "chat-template-args",
    ):
        assert f"--judge-{option}" in options("arena")


def test_the_same_setting_has_the_same_default_in_python() -> None:
    for kind in (WatchSettings, ArenaSettings):
        for name in Settings.model_fields.keys() & kind.model_fields.keys():
            if name in ("suite", "revision", "base_url", "served_model"):
                continue
            assert kind.model_fields[name].default == Settings.model_fields[name].default, name


def test_a_base_model_may_be_called_so() -> None:
    assert settings_of(model="m", mode="base") == settings_of(model="m", mode="foundation")
    assert settings_of(model="m", mode="base").mode == "foundation", "the word in records"
    with pytest.raises(UserError, match=r"--mode: 'chat' is not possible\. .*'foundation'"):
        settings_of(model="m", mode="chat")


def test_what_a_watch_is_asked_reaches_the_checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """--lock, --exact and --wording were options of `run` alone."""
    asked: list[Any] = []

    class CaughtError(Exception):
        pass

    def catch(settings: Any) -> None:
        asked.append(settings)
        raise CaughtError

    monkeypatch.setattr("darumeru.watch.watcher._check_settings", catch)
    args = ["watch", tmp_path, "--exact", "--lock", "b.json", "--wording", "w.yaml", "--likelihood", "--once"]
    args += ["--thinking", "on", "--thinking-budget", "300", "--think-end", "</t>", "--chat-template-args", "a=b"]
    CliRunner().invoke(app, list(map(str, args)))
    (settings,) = asked
    assert (settings.exact, str(settings.lock), str(settings.wording), settings.likelihood) == (
        True,
        "b.json",
        "w.yaml",
        True,
    )
    assert settings.suite == "darumeru-train"
    thinking = (settings.thinking, settings.thinking_budget, settings.think_end, settings.chat_template_args)
    assert thinking == ("on", 300, "</t>", {"a": "b"})


def test_an_arena_takes_revisions(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One for all models or one for each; the judge has its own."""
    asked: list[Any] = []
    monkeypatch.setattr("darumeru.arena.player.Player.of", lambda name, settings: asked.append(settings))
    (tmp_path / "p.txt").write_text("Привет\n", encoding="utf-8")
    base = ["arena", "o/a", "o/b", "--judge", "o/j", "--prompts", tmp_path / "p.txt", "--judge-revision", "r3"]
    for given, expected in ((["r1"], ["r1", "r1"]), (["r1", "r2"], ["r1", "r2"]), ([], [None, None])):
        asked.clear()
        CliRunner().invoke(app, list(map(str, [*base, *(f"--revision={r}" for r in given)])))
        assert [(s.model, s.revision) for s in asked] == [
            ("o/a", expected[0]), ("o/b", expected[1]), ("o/j", "r3"),
        ]  # fmt: skip
    wrong = CliRunner().invoke(app, list(map(str, [*base, "--revision=1", "--revision=2", "--revision=3"])))
    assert "--revision is given 3 times for 2 models" in wrong.output
    assert wrong.exit_code == 2


def test_the_list_of_commands_tells_all_of_them_in_whole_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for path in ([], ["data"], ["publish"]):
        shown = CliRunner().invoke(app, [*path, "--help"]).output.partition("Commands:")[2]
        assert "..." not in shown
        assert "…" not in shown
    assert {" ".join(path) for path in COMMANDS} == {
        "run", "arena", "race", "watch", "list", "show", "rescore", "leaderboard", "compare", "gate", "signal", "export",
        "contaminated", "import-run",
        "demo", "doctor",
        "data pull", "data check", "data import", "publish run", "publish board",
    }  # fmt: skip


@pytest.mark.parametrize("package", ["darumeru", "lep"])
def test_a_package_is_its_command_where_that_is_not_on_the_path(package: str) -> None:
    found = subprocess.run([sys.executable, "-m", package, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"darumeru \d+\.\d+\.\d+\S*\n", found.stdout)
