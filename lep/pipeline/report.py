"""The adaptation report: what the new vocabulary gained and what it cost, from the stored measures alone.

`report/report.json` has every figure; `index.html` and `report.md` are rendered from it. The leaderboard of all models
lies beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import read_json
from darumeru.scoring.bits import PIECE
from lep.model.manifest import read_manifest, versions
from lep.pipeline.stage import Model, Recipe, Step, plain_settings, source_of
from lep.pipeline.stages import calibrate, evaluate, init, instruct, pretrain, propagate, vocab
from lep.pipeline.steps import models_of, steps_of

WEB = Path(__file__).parent / "web"


def write_report(recipe: Recipe, output: Path) -> Path:
    """Write leaderboard and report of a study whose steps are done; returns the report's page."""
    from darumeru.files import write_json

    report = collect(recipe, output)
    _leaderboard(recipe, output, report)
    folder = output / "report"
    write_json(folder / "report.json", report)
    render(report, folder)
    return folder / "index.html"


def collect(recipe: Recipe, output: Path) -> dict[str, Any]:
    """All figures of the report, from manifests, measures and runs."""
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
    last = measured[-1]
    return {
        "format": 1,
        "name": recipe.top.name,
        "lang": recipe.top.lang,
        "made": _given(recipe),
        "languages": list(recipe.top.held_out),
        "models": [{"id": m.id, "title": m.title, "kind": m.kind,
                    **{key: texts[m.id][key] for key in ("tokens", "new_tokens", "rows", "parameters")}}
                   for m in measured],
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
            method: _maps(steps[f"propagate-{method}"]) for method in recipe[propagate]["methods"]
        },
        "benchmark": _benchmark(measured, steps, output),
        "examples": read_json(steps["examples"].output) if "examples" in steps else None,
        "trainings": _trainings(steps),
        "stages": {name: {key: record.get(key) for key in ("stage", "seconds", "finished")}
                   for name, record in records.items()},
        "recipe": _settings(recipe),
        "versions": versions(),
    }  # fmt: skip


def _given(recipe: Recipe) -> str | None:
    """How the instruct model came about, where it was made here."""
    if recipe[instruct] is None:
        return None
    return (
        "The pair is made for this study: the instruct model was trained from the base by this pipeline, so that the two "
        "differ in their embeddings. It is no published instruct model."
    )


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
    """How long was trained on how much, as the manifests say."""
    found: dict[str, Any] = {}
    keys = ("steps", "stopped_before", "tokens", "trained_tokens", "examples", "examples_seen", "loss", "sample_loss",
            "learning_rate", "tokens_per_second", "largest_logit_difference")  # fmt: skip
    for name in ("instruct", "pretrain", "calibrate"):
        if name in steps:
            measures = (read_manifest(steps[name].output) or {})["measures"]
            found[name] = {key: measures[key] for key in keys if key in measures}
            if f"{name}-data" in steps:
                found[name]["data"] = {
                    key: value for key, value in read_json(steps[f"{name}-data"].output)["counts"].items() if value
                }
    return found


def _benchmark(models: Sequence[Model], steps: Mapping[str, Step], output: Path) -> dict[str, Any]:
    """Scores of every run, and each model's paired differences from the original instruct model."""
    from darumeru.leaderboard.compare import compare
    from darumeru.record.run import load_run

    runs = {m.id: load_run(output / "runs" / read_json(steps[f"run-{m.id}"].output)["run"]) for m in models}
    original = runs["instruct"]
    suite = original.header["suite"]
    lower = {name for name, task in original.scores["tasks"].items() if not task.get("higher_is_better", True)}
    columns = [{"name": "suite", "title": suite["summary"], "lower": False, "tasks": []}]
    for group in suite["groups"]:
        tasks = list(group["tasks"])
        columns.append({"name": group["name"], "title": group["title"], "lower": set(tasks) <= lower, "tasks": tasks})
    models_: dict[str, Any] = {}
    for name, run in runs.items():
        scores, header = run.scores, run.header
        lines = [] if name == "instruct" else compare(original, run).to_json()["lines"]
        models_[name] = {
            "run": run.path.name,
            "id": str(header["id"]),
            "mode": header["mode"],
            "num_fewshot": header["num_fewshot"],
            "scores": {"suite": scores["suite"], **scores["groups"]},
            "tasks": {task: result["score"] for task, result in scores["tasks"].items()},
            "differences": [{key: line[key] for key in ("column", "title", "kind", "difference", "p_holm")}
                            for line in lines],
        }  # fmt: skip
    engine = original.header["engine"]
    return {
        "suite": suite["name"], "columns": columns, "limit": original.header["limit"], "engine": engine["version"],
        "data": next(iter(original.header["tasks"].values()))["data"], "models": models_, "lower": sorted(lower),
    }  # fmt: skip


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults, without this machine's paths."""
    values = {
        **recipe.top.model_dump(mode="json"),
        "vocab": {recipe[vocab].way: recipe[vocab].settings},
        "init": recipe[init],
        "pretrain": recipe[pretrain].model_dump(mode="json"),
        "propagate": recipe[propagate],
        "calibrate": recipe[calibrate],
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
        baseline=runs["instruct"]["id"][:10], published=False, title=recipe.top.name, about=file,
    )  # fmt: skip


# -- pages ------------------------------------------------------------------------------------------------------------


def render(report: Mapping[str, Any], folder: Path) -> None:
    """Write the pages of a report: `index.html` with its style and figure, and `report.md`."""
    import jinja2
    import yaml

    from darumeru.files import write_text
    from darumeru.leaderboard.figures import render as draw
    from darumeru.leaderboard.site import WEB as SITE
    from darumeru.leaderboard.site import write_assets
    from darumeru.leaderboard.tables import escape_markdown

    shutil.rmtree(folder / "assets", ignore_errors=True)
    write_assets(folder / "assets", board=False)
    svg, _ = draw(bits_figure(report))
    write_text(folder / "bits.svg", svg)
    tables = tables_of(report)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([WEB, SITE]), autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["md"] = lambda value: escape_markdown(str(value))
    environment.filters["quote"] = lambda text: "\n".join(f"    {line}" for line in str(text).splitlines())
    for name in ("index.html", "report.md"):
        page = environment.get_template(f"{name}.j2").render(
            r=report, tables=tables, columns=example_columns(report), root=".", home=None,
            settings=yaml.safe_dump(report["recipe"], allow_unicode=True, sort_keys=False),
        )  # fmt: skip
        write_text(folder / name, page)


def bits_figure(report: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out bits per byte of every model and text, as a Vega-Lite specification."""
    import altair as alt

    from darumeru.leaderboard.figures import CONFIG

    titles = {m["id"]: m["title"] for m in report["models"]}
    values = [
        {"model": titles[model], "text": text, "bits": measure["bits_per_byte"]}
        for model, texts in report["held_out"].items()
        for text, measure in texts.items()
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X("bits:Q", title="bits per byte of held-out text (lower is better)"),
            y=alt.Y("model:N", sort=list(titles.values()), title=None),
            color=alt.Color("text:N", sort=report["languages"], legend=None),
            column=alt.Column("text:N", sort=report["languages"]),
        )
        .properties(width=280)
        .configure(**CONFIG)
    )
    specification: dict[str, Any] = chart.to_dict()
    return specification


class Table(dict[str, Any]):
    """`title`, `head`, `rows` (texts; the first column is a name) and `notes`."""


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """What the pages show as tables."""
    return [t for t in (_vocabulary(report), _speed(report), _bits(report), _map_table(report), _scores(report),
                        _differences(report), _training_table(report), _stage_table(report)) if t["rows"]]  # fmt: skip


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> Table:
    return Table(title=title, head=list(head), rows=[list(row) for row in rows], notes=[n for n in notes if n])


def _vocabulary(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, sides in report["vocabulary"]["texts"].items():
        a, b = sides["before"], sides["after"]
        gain = b["symbols_per_token"] / a["symbols_per_token"]
        rows.append(
            [name, f"{a['symbols_per_token']:.2f}", f"{b['symbols_per_token']:.2f}", f"×{gain:.2f}",
             f"{a['tokens_per_word']:.2f}", f"{b['tokens_per_word']:.2f}", f"{a['one_token_words']:.1%}",
             f"{b['one_token_words']:.1%}"]
        )  # fmt: skip
    head = ["held-out text", "symbols per token, before", "after", "", "tokens per word, before", "after",
            "words that are one token, before", "after"]  # fmt: skip
    models = {m["id"]: m for m in report["models"]}
    before, after = models["instruct"], models[report["final"]]
    note = (
        f"Vocabulary: {before['tokens']:,} tokens before, {after['tokens']:,} after, {after['new_tokens']:,} of them new; "
        f"way: {report['vocabulary']['way']}. Parameters: {before['parameters']:,} before, {after['parameters']:,} after."
    )
    return _table("Vocabulary before and after", head, rows, note)


def _speed(report: Mapping[str, Any]) -> Table:
    rows = []
    titles = {m["id"]: m["title"] for m in report["models"]}
    writing = report["writing"]
    shown = list(writing["models"]) if writing else ["instruct", report["final"]]
    for text, sides in report["vocabulary"]["texts"].items():
        for model in shown:
            if model not in report["held_out"]:
                continue
            read = report["held_out"][model][text]
            density = sides["before" if model == "instruct" else "after"]["symbols_per_token"]
            wrote = writing["models"][model][text] if writing else None
            rate = wrote["tokens"] / wrote["seconds"] if wrote and wrote["tokens"] else None
            rows.append(
                [f"{text}: {titles[model]}", f"{read['tokens'] / read['seconds']:,.0f}",
                 f"{read['characters'] / read['seconds']:,.0f}", _number(rate, ",.1f"),
                 _number(wrote["characters"] / wrote["seconds"] if wrote else None, ",.1f"),
                 _number(rate * density if rate else None, ",.1f")]
            )  # fmt: skip
    head = ["text and model", "tokens read/s", "characters read/s", "tokens written/s", "characters written/s",
            "characters/s at the text's symbols per token"]  # fmt: skip
    how = (
        f"Writing: up to {writing['tokens']} tokens greedily after each of up to {writing['prompts']} beginnings of the text, "
        f"{writing['engine']}, models one after another in one process; loading and a first request do not count. The last "
        "column is the speed of writing the held-out text itself: tokens written per second times its symbols per token."
        if writing
        else ""
    )
    return _table("Speed before and after", head, rows, report["reading"]["how"], how, _machine(report))


def _machine(report: Mapping[str, Any]) -> str:
    m = report["reading"]["machine"]
    gpu = f", {m['gpu']}" if m["gpu"] else ""
    return f"Machine: {m['processor']}, {m['cores']} cores, {m['threads']} threads{gpu}."


def _bits(report: Mapping[str, Any]) -> Table:
    names = report["languages"]
    rows = []
    for m in report["models"]:
        texts = report["held_out"][m["id"]]
        rows.append(
            [m["title"], *(f"{texts[name]['bits_per_byte']:.4f}" for name in names),
             *(_number(texts[name]["share_of_new_tokens"], ".1%") for name in names)]
        )  # fmt: skip
    head = ["model", *(f"{name}: bits per byte" for name in names), *(f"{name}: new tokens written" for name in names)]
    note = (
        "Bits per byte: lower is better; comparable between vocabularies. New tokens written: their share in what the model "
        "writes greedily after the beginnings of the text."
    )
    return _table("Held-out text", head, rows, note)


def _map_table(report: Mapping[str, Any]) -> Table:
    rows = []
    for method, measures in report["maps"].items():
        name = f"{method} ({measures['chosen']})" if "chosen" in measures else method
        for which in ("embedding", "head"):
            if which not in measures:
                continue
            m = measures[which]
            cells = ["identity", "", "0", ""] if "map" in m else [
                f"{m['rank']:,}", f"{m['condition']:,.1f}", f"{m['distance_from_identity']:.4f}", f"{m['residual']:.4f}"
            ]  # fmt: skip
            rows.append([f"{name}: {which}", *cells, f"{m['correlation']:.4f}"])
    head = ["map D", "rank", "condition", "distance from identity", "residual", "correlation of base and instruct rows"]
    note = "Distance: ‖D − Id‖ / ‖Id‖, Frobenius norms. swap is the identity."
    return _table("Propagation", head, rows, note)


def _scores(report: Mapping[str, Any]) -> Table:
    found = report["benchmark"]
    rows = []
    for m in report["models"]:
        run = found["models"][m["id"]]
        cells = [_interval(run["scores"].get(c["name"])) for c in found["columns"]]
        rows.append([m["title"], f"{run['mode']}, {run['num_fewshot']}-shot", *cells])
    head = ["model", "setting", *(c["title"] for c in found["columns"])]
    limit = f", at most {found['limit']} documents a task" if found["limit"] else ""
    note = (
        f"Suite {found['suite']}{limit}; {found['engine']}; 95 % intervals. Every sample is on the leaderboard's pages."
    )
    return _table("Benchmark", head, rows, note)


def _differences(report: Mapping[str, Any]) -> Table:
    found = report["benchmark"]
    lines = {m["id"]: {d["column"]: d for d in found["models"][m["id"]]["differences"]} for m in report["models"]}
    columns = {name: line for of_model in lines.values() for name, line in of_model.items()}
    # Tasks are shown where not all of their group were run.
    whole = {task for c in found["columns"] if c["name"] in columns for task in c["tasks"]}
    columns = {name: line for name, line in columns.items() if line["kind"] != "task" or name not in whole}
    lower = {c["name"] for c in found["columns"] if c["lower"]} | set(found["lower"])
    rows = [
        [m["title"], *(_difference(lines[m["id"]].get(name), name in lower) for name in columns)]
        for m in report["models"]
        if m["id"] != "instruct"
    ]
    head = ["model − instruct (original)", *(line["title"] for line in columns.values())]
    note = (
        "Paired on the same documents, 95 % intervals. ▲ better, ▼ worse: significant at the 5 % level after Holm's correction "
        "within the groups. Where the settings differ (above), so does what is compared."
    )
    return _table("Differences from the original", head, rows, note)


def _training_table(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, t in report["trainings"].items():
        loss = t.get("sample_loss", {"after": t.get("loss")})
        rows.append(
            [name, f"{t['steps']:,}", _number(t.get("tokens"), ",.0f"), _number(t.get("trained_tokens"), ",.0f"),
             _number(t.get("examples"), ",.0f"), _number(loss.get("before"), ".3f"), _number(loss["after"], ".3f"),
             _number(report["stages"][name]["seconds"], ",.0f")]
        )  # fmt: skip
    head = ["training", "steps", "tokens", "with loss", "examples", "loss before", "loss after", "seconds"]
    note = (
        "Loss of a calibration: mean over the assistant's tokens in the beginnings of the same training examples, before and "
        "after; of pretrain: at the last logged step. Seconds are those of the process that finished the stage."
    )
    return _table("How long was trained", head, rows, note)


def _stage_table(report: Mapping[str, Any]) -> Table:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in report["stages"].values():
        stages.setdefault(record["stage"], []).append(record)
    rows = [
        [name, str(len(records)), f"{sum(r['seconds'] for r in records):,.0f}", max(r["finished"] for r in records)]
        for name, records in stages.items()
    ]
    return _table("Stages", ["stage", "steps", "seconds", "finished (UTC)"], rows)


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _interval(score: Mapping[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "–"
    low, high = score.get("low"), score.get("high")
    return f"{score['value']:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _difference(found: Mapping[str, Any] | None, lower: bool) -> str:
    if found is None:
        return "–"
    d, p = found["difference"], found["p_holm"]
    bounds = "" if d["low"] is None else f" [{d['low']:+.3f}, {d['high']:+.3f}]"
    mark = "" if p is None or p >= 0.05 else " ▲" if (d["value"] < 0) == lower else " ▼"
    return f"{d['value']:+.3f}{bounds}{mark}"


def example_columns(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Id and title of the models whose answers are shown."""
    titles = {m["id"]: m["title"] for m in report["models"]}
    return [(name, titles[name]) for name in (report["examples"] or {"answers": {}})["answers"]]
