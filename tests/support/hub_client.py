"""A process of its own that asks the hub, since the hub's clients read their environment when they are imported.

It reads a JSON list of [function, arguments] and prints what each returned, {"value": …}, or how it was refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUITES = {"darumeru": 17, "darumeru-extended": 6}
"""Suite → number of tasks."""


def settings(model: Path, suite: str, **more: Any) -> dict[str, Any]:
    """Return the settings of a run on the hub's data."""
    return {"model": str(model), "suite": suite, "engine": "hf", "dtype": "float32", **more}


def rows(path: str, name: str | None, split: str, lock: Mapping[str, str] = {}) -> dict[str, Any]:
    from darumeru.data.bundle import HubBundle

    found = HubBundle(dict(lock)).load(path, name, split)
    return {"rows": found.rows, "source": found.source}


def revision(path: str, branch: str | None = None) -> str:
    from darumeru.data.bundle import HubBundle

    return HubBundle().revision(path, branch)


def corpus(name: str) -> list[str]:
    from darumeru.data.texts import read_texts

    return list(read_texts([name]))


def model(name: str, revision: str | None = None) -> str:
    from darumeru.inference.model import open_model

    return open_model(name, revision=revision).name


def checkpoint(name: str, revision: str | None = None) -> list[str]:
    from lep.model.checkpoint import locate

    return sorted(file.name for file in Path(locate(name, revision=revision)).iterdir())


def pull(suite: str, output: str, lock: str | None = None) -> str:
    from darumeru.task.pull import pull as pull_bundle

    return str(pull_bundle(suite, Path(output), Path(lock) if lock else None))


def plan(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Identity, prompts and data of a run, nothing computed."""
    from darumeru.evaluation import prepare, settings_of
    from darumeru.files import fingerprint

    header = prepare(settings_of(**settings)).header()
    data = {name: facts["data"] for name, facts in header["tasks"].items()}
    return {"id": fingerprint(header), "prompts": header["requests_sha256"], "data": data}


def run(output: str, settings: Mapping[str, Any], constant: bool = False) -> dict[str, Any]:
    """Evaluate the oracle, or a model that always says the same."""
    from darumeru.evaluation import execute, prepare, settings_of
    from support.tiny import KnowingEngine

    plan = prepare(settings_of(**settings))
    engines: list[KnowingEngine] = []

    def open_engine(plan: Any) -> KnowingEngine:
        engines.append(KnowingEngine(plan, constant=constant))
        return engines[-1]

    done = execute(plan, Path(output), open_engine=open_engine)
    return {
        "name": done.path.name,
        "id": done.header.id,
        "complete": done.complete,
        "asked": sorted({request.rsplit("/", 2)[0] for engine in engines for request in engine.asked}),
        "prompts": plan.header()["requests_sha256"],
        "data": {name: task.data for name, task in done.header.tasks.items()},
        "scores": done.scores.to_json(),
    }


FUNCTIONS = {f.__name__: f for f in (rows, revision, corpus, model, checkpoint, pull, plan, run)}


def ask(environment: Mapping[str, str], *calls: tuple[Any, ...], preamble: str = "") -> list[dict[str, Any]]:
    """Make the calls in one process with this environment; return the answer to each."""
    process = start(environment, *calls, preamble=preamble)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    answers: list[dict[str, Any]] = json.loads(out)
    return answers


def start(environment: Mapping[str, str], *calls: tuple[Any, ...], preamble: str = "") -> subprocess.Popen[str]:
    """Start the process; `preamble` is Python that it runs first."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{preamble}\nfrom support.hub_client import main; main()", json.dumps(calls)],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    """See the module."""
    from darumeru.errors import DarumeruError

    answers: list[dict[str, Any]] = []
    for name, *arguments in json.loads(sys.argv[1]):
        try:
            answers.append({"value": FUNCTIONS[name](*arguments)})
        except DarumeruError as error:
            answers.append({"error": str(error), "code": error.exit_code})
    print(json.dumps(answers, ensure_ascii=False))


if __name__ == "__main__":
    main()
