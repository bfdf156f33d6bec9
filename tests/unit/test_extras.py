"""An evaluator's node installs no extras: what it runs imports none, and what needs one says which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("altair", "vl_convert", "pandas", "scipy", "threadpoolctl", "regex", "zstandard", "datasketch", "sklearn",
          "httpx", "tenacity", "peft", "trl", "accelerate", "gguf", "ray")  # fmt: skip

# lm-eval brings sklearn (which brings scipy and threadpoolctl), datasets pandas, transformers regex, the hub httpx.
BLOCKED = tuple(
    name for name in EXTRAS if name not in ("sklearn", "scipy", "threadpoolctl", "pandas", "regex", "httpx")
)


def python(blocked: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which some modules are not installed."""
    block = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + textwrap.dedent(code)], capture_output=True, text=True, cwd=ROOT
    )


def command(package: str, blocked: tuple[str, ...], *arguments: object) -> subprocess.CompletedProcess[str]:
    given = [package, *map(str, arguments)]
    return python(blocked, f"import sys\nsys.argv = {given!r}\nfrom {package}.cli import main\nmain()")


def third_party(folder: str) -> dict[str, set[str]]:
    """The packages that a folder's files import when they are imported, by file; what stands in functions is left out."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                nodes += node.orelse
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ("darumeru", "lep"):
                    found.setdefault(str(file.relative_to(ROOT)), set()).add(top)
            nodes += ast.iter_child_nodes(node)
    return found


def wanted(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w.-]+", text)[0].lower().replace("_", "-") for text in requirements}  # type: ignore[index]
    return names | ({"annotated-types"} if "pydantic" in names else set())  # pydantic's types for bounds


def test_darumeru_imports_at_once_only_what_its_core_installs() -> None:
    core = wanted(PROJECT["dependencies"])
    distributions = packages_distributions()
    for file, modules in third_party("darumeru").items():
        for module in modules:
            names = {name.lower().replace("_", "-") for name in distributions[module]}
            assert names & core, f"{file} imports {module}, which is in no core dependency"


def test_lep_imports_at_once_only_what_the_core_and_its_extra_install() -> None:
    allowed = wanted(PROJECT["dependencies"]) | wanted(PROJECT["optional-dependencies"]["lep"])
    distributions = packages_distributions()
    for file, modules in third_party("lep").items():
        for module in modules:
            names = {name.lower().replace("_", "-") for name in distributions[module]}
            assert names & allowed, f"{file} imports {module}"


def test_what_only_tests_or_extras_need_is_no_core_dependency() -> None:
    core = wanted(PROJECT["dependencies"])
    assert not core & {"altair", "vl-convert-python", "datasketch", "zstandard", "scikit-learn", "peft", "trl"}
    assert wanted(PROJECT["optional-dependencies"]["dev"]) >= {"darumeru", "scikit-learn"}
    assert "darumeru[all]" in PROJECT["optional-dependencies"]["dev"]


def test_tasks_and_records_are_read_without_extras() -> None:
    record = ROOT / "leaderboards" / "runs" / "gemma-3-270m-mini-part"
    done = command("darumeru", BLOCKED, "show", record)
    assert done.returncode == 0, done.stderr
    assert "rucola" in done.stdout
    for arguments in (("list", "suites"), ("export", record, "--format", "markdown"), ("--help",)):
        done = command("darumeru", BLOCKED, *arguments)
        assert done.returncode == 0, done.stderr


def test_the_commands_import_no_extra() -> None:
    for blocked, modules in ((EXTRAS, "darumeru.cli, lep.cli"), (BLOCKED, "darumeru.evaluation, darumeru.watch")):
        done = python(blocked, f"import {modules}")
        assert done.returncode == 0, done.stderr


def test_a_run_is_planned_without_extras(tiny_chat: Path) -> None:
    done = command("darumeru", BLOCKED, "run", "--model", tiny_chat, "--data", "mini", "--engine", "hf", "--dry-run",
                   "--tasks", "parus,rucola,sum_abstractive", "--limit", 2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rucola" in done.stdout


@pytest.mark.parametrize(
    ("package", "blocked", "arguments", "missing", "extra"),
    [
        ("darumeru", "altair", ("leaderboard", "RUNS", "--output", "OUT"), "altair", "leaderboard"),
        ("darumeru", "vl_convert", ("leaderboard", "RUNS", "--output", "OUT"), "vl-convert-python", "leaderboard"),
        ("darumeru", "ray", ("run", "--model", "MODEL", "--workers", "2"), "ray", "ray"),
        ("lep", "datasketch", ("corpus", "dedup", "--corpus", "TEXT", "--output", "OUT.jsonl"), "datasketch", "lep"),
        ("lep", "zstandard", ("corpus", "clean", "--corpus", "TEXT", "--output", "OUT.jsonl.zst"), "zstandard", "lep"),
        ("lep", "regex", ("init", "--model", "a", "--tokenizer", "b", "--output", "OUT"), "regex", "lep"),
    ],
)  # fmt: skip
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, package: str, blocked: str, arguments: tuple[str, ...], missing: str, extra: str
) -> None:
    (tmp_path / "texts.txt").write_text("Один текст.\n", encoding="utf-8")
    runs = ROOT / "leaderboards" / "runs"
    places = {"RUNS": runs, "RUN": runs / "gemma-3-270m-mini-part", "TEXT": tmp_path / "texts.txt"}
    given = [str(places.get(a, tmp_path / a if a.startswith("OUT") else a)) for a in arguments]
    done = command(package, (blocked,), *given)
    assert done.returncode == 2, done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert f"needs {missing}. Install the extra: pip install 'darumeru[{extra}]'." in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_lep_as_a_library_names_its_extra() -> None:
    done = python(("regex",), "import lep\nfrom darumeru import UserError\ntry:\n    lep.initialise\n"
                  "except UserError as error:\n    print(error)\n")  # fmt: skip
    assert "pip install 'darumeru[lep]'" in done.stdout, done.stderr
