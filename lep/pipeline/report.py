"""The adaptation report: what the new vocabulary gained and what it cost, from the stored measures alone.

`report/report.json` has every figure; `index.html` and `report.md` are rendered from it. The leaderboard of all models
lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import read_json
from darumeru.scoring.bits import PIECE
from lep.measure.held_out import HeldOut
from lep.model.checkpoint import locate
from lep.model.manifest import read_manifest, versions
from lep.pipeline import adaptation
from lep.pipeline.pages import render
from lep.pipeline.stage import Model, Recipe, Step, plain_settings, source_of
from lep.pipeline.stages import calibrate, chats, evaluate, init, instruct, pretrain, propagate, vocab
from lep.pipeline.stages.pretrain import CONTROL
from lep.pipeline.steps import models_of, steps_of
from lep.pretraining.replay import parse_replay


def write_report(recipe: Recipe, output: Path) -> Path:
    """Write leaderboard and report of a study whose steps are done; returns the report's page."""
    from darumeru.files import write_json

    report = collect(recipe, output)
    _leaderboard(recipe, output, report)
    folder = output / "report"
    write_json(folder / "report.json", report)
    first = adaptation.write_figure(report["adaptation"], folder) if report["adaptation"] is not None else []
    render(report, folder, first)
    return folder / "index.html"


def collect(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Return all figures of the report, from manifests, measures and runs."""
    from lep.vocab.report import report_vocabularies

    steps = {step.name: step for step in steps_of(recipe, output)}
    records = {name: read_json(output / "stages" / f"{name}.json") for name in steps}
    measured = [m for m in models_of(recipe, output) if f"run-{m.id}" in steps]
    texts = {m.id: read_json(steps[f"text-{m.id}"].output) for m in measured}
    sources = [f"{name}={file}" for name, file in recipe.top.held_out.items()]
    vocabulary = report_vocabularies(
        [source_of(recipe.top.base, output), steps["vocab"].output], sources, field=recipe.top.field
    )
    names = list(vocabulary.longest)
    rows = {side: {row.text: row for row in vocabulary.rows if row.tokenizer == name}
            for side, name in zip(("before", "after"), names, strict=True)}  # fmt: skip
    last, original = measured[-1], "base" if recipe.direct else "instruct"
    return {
        "format": 1,
        "name": recipe.top.name,
        "lang": recipe.top.lang,
        "made": _given(recipe),
        "languages": list(recipe.top.held_out),
        "models": [{"id": m.id, "title": m.title, "kind": m.kind,
                    **{key: texts[m.id][key] for key in ("tokens", "new_tokens", "rows", "parameters")}}
                   for m in measured],
        "original": original,
        "final": last.id,
        "vocabulary": {
            "way": recipe[vocab].way,
            "texts": {
                name: {side: _row(rows[side][name]) for side in rows} for name in recipe.top.held_out
            },
            "longest": vocabulary.longest[names[1]],
        },
        "held_out": {m.id: texts[m.id]["texts"] for m in measured},
        "reading": {"how": _reading(texts[last.id]), "machine": texts[last.id]["machine"]},
        "writing": read_json(steps["speed"].output) if "speed" in steps else None,
        "maps": {
            method: _maps(steps[name])
            for method in recipe[propagate]["methods"]
            if (name := f"propagate-{method}") in steps
        },
        "adaptation": _adaptation(recipe, steps),
        "benchmark": _benchmark(measured, steps, output, original),
        "chats": read_json(steps["chats"].output) if "chats" in steps else None,
        "examples": read_json(steps["examples"].output) if "examples" in steps else None,
        "trainings": _trainings(steps),
        "stages": {name: {key: record.get(key) for key in ("stage", "seconds", "finished")}
                   for name, record in records.items()},
        "recipe": _settings(recipe),
        "versions": versions(),
    }  # fmt: skip


def _given(recipe: Recipe) -> str | None:
    """Return how the instruct model came about, where it was made here."""
    if recipe[instruct] is None:
        return None
    return (
        "The pair is made for this study: the instruct model was trained from the base by this pipeline, so that the two "
        "differ in their embeddings. It is no published instruct model."
    )


def _adaptation(recipe: Recipe, steps: Mapping[str, Step]) -> dict[str, Any] | None:
    """Return what the vocabulary costs, where the base was trained in its own one too."""
    if CONTROL not in steps:
        return None
    settings, top = recipe[pretrain], recipe.top
    sources = [f"{name}={file}" for name, file in top.held_out.items()]
    texts = HeldOut.read(sources, field=settings.field, characters=settings.held_out_characters)
    adapted = steps["pretrain"].output
    base = locate(source_of(top.base, adapted.parent))
    return adaptation.collect(base, steps[CONTROL].output, adapted, texts)


def _row(row: Any) -> dict[str, Any]:
    keys = ("tokens", "symbols_per_token", "tokens_per_word", "bytes_per_token", "one_token_words", "new_tokens_used",
            "new_tokens")  # fmt: skip
    return {key: getattr(row, key) for key in keys}


def _reading(measure: Mapping[str, Any]) -> str:
    return (
        f"Reading: a forward pass over the held-out texts in pieces of at most {PIECE:,} characters, one at a time, "
        f"transformers, {str(measure['dtype']).removeprefix('torch.')}, {measure['device']}."
    )


def _maps(step: Step) -> dict[str, Any]:
    measures = (read_manifest(step.output) or {})["measures"]
    keys = ("chosen", "embedding", "head", "shared_tokens", "instruct_rows_kept")
    return {key: measures[key] for key in keys if key in measures}


def _trainings(steps: Mapping[str, Step]) -> dict[str, Any]:
    """Return how long was trained on how much, as the manifests say."""
    found: dict[str, Any] = {}
    keys = ("steps", "stopped_before", "tokens", "trained_tokens", "examples", "examples_seen", "loss", "sample_loss",
            "learning_rate", "tokens_per_second", "largest_logit_difference")  # fmt: skip
    for name in ("instruct", "pretrain", CONTROL, "calibrate"):
        if name in steps:
            measures = (read_manifest(steps[name].output) or {})["measures"]
            found[name] = {key: measures[key] for key in keys if key in measures}
            if f"{name}-data" in steps:
                found[name]["data"] = {
                    key: value for key, value in read_json(steps[f"{name}-data"].output)["counts"].items() if value
                }
    return found


def _benchmark(models: Sequence[Model], steps: Mapping[str, Step], output: Path, first: str) -> dict[str, Any]:
    """Return scores of every run, and each model's paired differences from the original, whose id is `first`."""
    from darumeru.leaderboard.compare import compare
    from darumeru.record.run import load_run

    runs = {m.id: load_run(output / "runs" / read_json(steps[f"run-{m.id}"].output)["run"]) for m in models}
    original = runs[first]
    suite = original.header.suite
    lower = {name for name, task in original.scores.tasks.items() if not task.higher_is_better}
    columns = [{"name": "suite", "title": suite.summary, "lower": False, "tasks": []}]
    for group in suite.groups:
        lower_group = set(group.tasks) <= lower
        columns.append({"name": group.name, "title": group.title, "lower": lower_group, "tasks": group.tasks})
    models_: dict[str, Any] = {}
    for name, run in runs.items():
        scores, header = run.scores, run.header
        lines = [] if name == first else compare(original, run).to_json()["lines"]
        models_[name] = {
            "run": run.path.name,
            "id": str(header.id),
            "mode": header.mode,
            "num_fewshot": header.num_fewshot,
            "scores": {name: mean.to_json() for name, mean in (("suite", scores.suite), *scores.groups.items())},
            "tasks": {task: result.score.to_json() for task, result in scores.tasks.items()},
            "differences": [{key: line[key] for key in ("column", "title", "kind", "difference", "p_holm")}
                            for line in lines],
        }  # fmt: skip
    header = original.header
    return {
        "suite": suite.name, "columns": columns, "limit": header.limit, "engine": header.engine.version,
        "data": next(iter(header.tasks.values())).data, "models": models_, "lower": sorted(lower),
    }  # fmt: skip


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults, without this machine's paths."""
    values = {
        **recipe.top.model_dump(mode="json"),
        "vocab": {recipe[vocab].way: recipe[vocab].settings},
        "init": recipe[init],
        "pretrain": recipe[pretrain].model_dump(mode="json")
        | {"replay": [part.name for part in parse_replay(recipe[pretrain].replay)]},
        "propagate": recipe[propagate],
        "calibrate": recipe[calibrate],
        "chats": recipe[chats],
        "evaluate": recipe[evaluate],
        "report": recipe.report.model_dump(mode="json"),
    }
    if recipe[instruct] is not None:
        values["instruct"] = recipe[instruct]
    plain: dict[str, Any] = plain_settings(values)
    return plain


def _leaderboard(recipe: Recipe, output: Path, report: Mapping[str, Any]) -> None:
    import yaml

    from darumeru.files import write_text
    from darumeru.leaderboard import build

    runs = report["benchmark"]["models"]
    about = {
        runs[m["id"]]["id"][:10]: {"name": m["title"], "vocab": f"{m['tokens']:,} tokens"} for m in report["models"]
    }
    file = output / "about.yaml"
    write_text(file, yaml.safe_dump(about, allow_unicode=True))
    along = output / f"base-{recipe.top.lang}" / "runs"  # the curve of pretrain.suite
    build(
        [*(output / "runs" / runs[m["id"]]["run"] for m in report["models"]), *([along] if along.is_dir() else [])],
        output / "leaderboard",
        baseline=runs[report["original"]]["id"][:10], published=False, title=recipe.top.name, about=file,
    )  # fmt: skip
