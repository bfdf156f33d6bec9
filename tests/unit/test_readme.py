"""What the documents say is there: links, commands with their options, make targets, and figures as they were printed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from darumeru.cli import app as darumeru_app
from lep.cli import app as lep_app

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.ru.md")
DOCUMENTS = [*READMES, "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = {"darumeru": typer.main.get_command(darumeru_app), "lep": typer.main.get_command(lep_app)}


def text_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def code_of(file: str) -> list[str]:
    """The lines of code blocks, continued lines joined."""
    block = re.compile(r"(?:^ {4}[^\n]*\n)+|^```.*?^```", flags=re.M | re.S)
    joined = "\n".join(block.findall(text_of(file))).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines()]


def commands_of(file: str) -> list[list[str]]:
    """Each command of ours in a document: its words without comment and brackets."""
    prose = re.findall(r"`((?:darumeru|lep) [^`\n]+)`", text_of(file))
    lines = [line for line in [*code_of(file), *prose] if re.match(r"(darumeru|lep) [a-z]", line)]
    found = []
    for line in lines:
        line = re.sub(r"\s{2,}#.*", "", line)
        found.append(shlex.split(re.sub(r"[\[\]]", " ", line).replace("…", " ")))
    return found


def test_links_of_the_readmes_lead_somewhere() -> None:
    for file in READMES:
        for link in re.findall(r"\]\(([^)]+)\)", text_of(file)):
            assert link.startswith("https://") or (ROOT / link).exists(), f"{file}: {link}"


@pytest.mark.parametrize("file", DOCUMENTS)
def test_commands_and_their_options_exist(file: str) -> None:
    for words in commands_of(file):
        command: Any = COMMANDS[words[0]]
        rest = words[1:]
        while hasattr(command, "resolve_command") and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            context = command.context_class(command, info_name=" ".join(words))
            _, command, rest = command.resolve_command(context, rest)  # fails where there is no such command
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help", "--debug"}
        for word in rest:
            option = word.partition("=")[0]
            if re.match(r"--[a-z]", option):
                assert option in known, f"{file}: {' '.join(words)}: {option}"


@pytest.mark.parametrize("file", DOCUMENTS)
def test_make_targets_exist(file: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.M))
    for target in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text_of(file), flags=re.M):
        assert target in targets, f"{file}: make {target}"


@pytest.mark.parametrize("file", DOCUMENTS)
def test_extras_exist(file: str) -> None:
    extras = set(re.findall(r"^([a-z-]+) = \[", text_of("pyproject.toml"), flags=re.M))
    for found in re.findall(r"(?:'\.|darumeru)\[([a-z,-]+)\]", text_of(file)):
        assert set(found.split(",")) <= extras, f"{file}: [{found}]"


def test_scores_of_the_readme_are_those_of_the_record() -> None:
    scores = json.loads(text_of("leaderboards/runs/smollm2-135m-instruct-mini/scores.json"))
    expected = {name: task["score"] for name, task in scores["tasks"].items()}
    expected |= {group["title"]: group for group in scores["groups"].values()} | {"Micro-Avg": scores["suite"]}
    printed = re.findall(r"^ +(\S.*?) {2,}(\d\.\d{3}) +\[(\d\.\d{3}), (\d\.\d{3})\]", text_of("README.md"), flags=re.M)
    shown = {name: tuple(values) for name, *values in printed}
    assert shown == {k: tuple(f"{s[part]:.3f}" for part in ("value", "low", "high")) for k, s in expected.items()}


def test_the_russian_start_begins_with_the_same_commands() -> None:
    english, russian = ([re.sub(r"\s{2,}#.*", "", line) for line in code_of(file)] for file in READMES)
    first = [line for line in russian if line.startswith(("make ", "darumeru "))]
    assert first[:2] == ["make demo", "make test"]
    assert [line for line in english if line in first] == first


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) < 200
    assert len(text_of("README.ru.md").splitlines()) < 100
