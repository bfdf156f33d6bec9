"""What `lep` shows in a terminal of 80 columns: whole names of options, whole numbers."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lep
from lep import cli
from lep.cli.terminal import print_table

COMMANDS = [
    ["vocab", "extend"], ["vocab", "optimize"], ["vocab", "swap"], ["vocab", "train"], ["vocab", "check"],
    ["vocab", "report"], ["corpus", "clean"], ["corpus", "dedup"], ["corpus", "mix"], ["init"], ["pretrain"],
    ["propagate"], ["calibrate", "data"], ["calibrate", "train"], ["run"], ["inspect"],
]  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["lep", *arguments, "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_cuts_no_name(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(monkeypatch, capsys, *command)
    assert max(map(len, said.splitlines())) <= 80
    parsed = cli.load(command[0])
    for name in command[1:]:
        parsed = parsed.commands[name]
    flags = {flag for parameter in parsed.params for flag in parameter.opts if flag.startswith("--")}
    assert flags
    for flag in flags | {"--help"}:
        assert re.search(rf"(?m)^  {flag}( |$)", said), flag


@pytest.mark.parametrize("group", [[], ["vocab"], ["corpus"], ["calibrate"]], ids=lambda g: " ".join(g) or "lep")
def test_a_list_of_commands_says_whole_sentences(
    group: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(monkeypatch, capsys, *group)
    assert max(map(len, said.splitlines())) <= 80
    assert "..." not in said.partition("Commands:")[2]
    for command in COMMANDS:
        if command[:-1] == group:
            assert re.search(rf"(?m)^  {command[-1]} ", said)


PARAMETERS: list[tuple[list[str], str, dict[str, str]]] = [
    (["vocab", "extend"], "extend_vocabulary", {"texts": "text"}),
    (["vocab", "optimize"], "optimize_vocabulary", {"texts": "text"}),
    (["vocab", "swap"], "swap_vocabulary", {"texts": "text"}),
    (["vocab", "train"], "train_vocabulary", {"texts": "text"}),
    (["corpus", "clean"], "clean_corpus", {}),
    (["corpus", "dedup"], "dedup_corpus", {}),
    (["corpus", "mix"], "mix_corpus", {"sources": "source", "characters": "chars"}),
    (["init"], "initialise", {}),
    (["propagate"], "propagate", {"texts": "text"}),
    (["calibrate", "train"], "calibrate", {}),
]


@pytest.mark.parametrize(("command", "function", "other"), PARAMETERS, ids=lambda value: str(value))
def test_every_parameter_of_a_stage_has_its_option_with_help(
    command: list[str], function: str, other: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = shown(monkeypatch, capsys, *command)
    for name in inspect.signature(getattr(lep, function)).parameters.keys() - {"warn", "progress", "changes"}:
        option = "--" + other.get(name, name).replace("_", "-")
        assert re.search(rf"(?m)^  {option} .*(  |\n {{10,}})\S", said), f"{option} has no help"


def test_every_setting_of_a_training_has_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown(monkeypatch, capsys, "pretrain")
    for name in lep.PretrainSettings.model_fields:
        assert re.search(rf"(?m)^  --{name.replace('_', '-')} .*(  |\n {{10,}})\S", said), name


@pytest.mark.parametrize("option", ["--suite", "--data", "--limit"])
def test_what_a_training_evaluates_is_asked_for_as_in_a_run(option: str) -> None:
    import typer

    from darumeru.cli import app

    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    (theirs,), (ours,) = ([p for p in command.params if option in p.opts] for command in (run, cli.load("pretrain")))
    assert theirs.help
    assert ours.help == theirs.help


def test_numbers_of_a_table_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = (
        "a step with a rather long name " * 3,
        "16,230,123,456",
        "1.2e+21",
        "12,345.67",
        "1,234.56",
        "16,230,123,456",
    )
    print_table(("What", "Tokens that are read", "FLOP", "Hours on NVIDIA H100", "GB of disk", "Bytes"), [row])
    said = capsys.readouterr().out
    assert "…" not in said
    for number in row[1:]:
        assert number in said
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("What", "Tokens", "FLOP", "Hours", "GB", "Bytes"), [row])
    said = capsys.readouterr().out
    assert all(number in said for number in row[1:])


def test_the_plan_of_a_large_study_shows_whole_numbers(
    tmp_path: Path, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.lep_models import ENGLISH, RUSSIAN, save_byte_level

    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    (tmp_path / "corpus.txt").write_text("\n".join(RUSSIAN * 50))
    monkeypatch.setenv("COLUMNS", "80")
    arguments = [
        "lep", "run", "llama-3-8b-ru-optimized", "--output", tmp_path / "out", "--dry-run", "--corpus", tmp_path / "corpus.txt",
        "--set", f"base={base}", f"instruct={base}", "pretrain.max_steps=10000",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr()
    assert stopped.value.code == 0, said.err
    plan = said.out.partition("Missing")[0]
    assert max(map(len, plan.splitlines())) <= 80
    assert "…" not in plan
    steps, rows = 10_000, 256
    assert re.search(r"pretrain +1 +[\d,]{9,} ", said.out), (steps * rows, said.out)


def test_one_command_imports_no_other() -> None:
    code = (
        "import sys; sys.argv = ['lep', 'vocab', '--help']; import lep.cli\n"
        "try: lep.cli.main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'lm_eval', 'lep.pretraining', 'lep.pipeline') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
