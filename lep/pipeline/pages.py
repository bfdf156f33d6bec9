"""The pages of an adaptation report: its tables, its figure, `index.html` and `report.md`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"


def render(report: Mapping[str, Any], folder: Path, first: Sequence[Table] = ()) -> None:
    """Write the pages of a report: `index.html` with its style and figure, and `report.md`; the tables `first` lead."""
    import yaml

    from darumeru.files import write_text
    from darumeru.leaderboard.figures import render as draw
    from darumeru.web.pages import render_page, write_assets

    shutil.rmtree(folder / "assets", ignore_errors=True)
    write_assets(folder / "assets")
    svg, _ = draw(bits_figure(report))
    write_text(folder / "bits.svg", svg)
    tables = [*first, *tables_of(report)]
    for name in ("index.html", "report.md"):
        page = render_page(
            WEB, f"{name}.j2", r=report, tables=tables, columns=example_columns(report), root=".", home=None,
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
    """`title`, `head`, `rows` (texts; the first column is a name), `words` (which columns hold words, not numbers), `notes`, and
    perhaps `figure` (file, what it shows)."""


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """Return what the pages show as tables."""
    return [t for t in (_vocabulary(report), _speed(report), _bits(report), _chats(report), _map_table(report), _scores(report),
                        _differences(report), _training_table(report), _stage_table(report)) if t["rows"]]  # fmt: skip


def make_table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *notes: str, words: Sequence[int] = ()
) -> Table:
    """Return a table; empty notes are left out."""
    return Table(
        title=title, head=list(head), rows=[list(row) for row in rows], words=[0, *words], notes=[n for n in notes if n],
        figure=None,
    )  # fmt: skip


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
    before, after = models[report["original"]], models[report["final"]]
    note = (
        f"Vocabulary: {before['tokens']:,} tokens before, {after['tokens']:,} after, {after['new_tokens']:,} of them new; "
        f"way: {report['vocabulary']['way']}. Parameters: {before['parameters']:,} before, {after['parameters']:,} after."
    )
    return make_table("Vocabulary before and after", head, rows, note)


def _speed(report: Mapping[str, Any]) -> Table:
    rows = []
    titles = {m["id"]: m["title"] for m in report["models"]}
    writing = report["writing"]
    shown = list(writing["models"]) if writing else [report["original"], report["final"]]
    for text, sides in report["vocabulary"]["texts"].items():
        for model in shown:
            if model not in report["held_out"]:
                continue
            read = report["held_out"][model][text]
            density = sides["before" if model == report["original"] else "after"]["symbols_per_token"]
            wrote = writing["models"][model][text] if writing else None
            rate = wrote["tokens"] / wrote["seconds"] if wrote and wrote["tokens"] else None
            rows.append(
                [f"{text}: {titles[model]}", f"{read['tokens'] / read['seconds']:,.0f}",
                 f"{read['characters'] / read['seconds']:,.0f}", number(rate, ",.1f"),
                 number(wrote["characters"] / wrote["seconds"] if wrote else None, ",.1f"),
                 number(rate * density if rate else None, ",.1f")]
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
    return make_table("Speed before and after", head, rows, report["reading"]["how"], how, _machine(report))


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
             *(_written(texts[name]) for name in names)]
        )  # fmt: skip
    head = ["model", *(f"{name}: bits per byte" for name in names), *(f"{name}: new tokens written" for name in names)]
    note = (
        "Bits per byte: lower is better; comparable between vocabularies. New tokens written: their share in what the model "
        "writes greedily after beginnings of the text, and of how many new tokens the tokenizer itself would have put there."
    )
    return make_table("Held-out text", head, rows, note)


def _written(text: Mapping[str, Any]) -> str:
    share, taken = text["share_of_new_tokens"], text.get("chances_taken")
    return number(share, ".1%") + ("" if taken is None else f" ({taken:.0%} of the possible)")


def _chats(report: Mapping[str, Any]) -> Table:
    found = report.get("chats") or {"models": {}, "conversations": 0, "characters": 0}
    rows = [
        [m["title"], f"{c['chat_bits_per_byte']:.4f}", f"{c['chat_ended']:.1%}", f"{c['chat_template_kept']:.1%}"]
        for m in report["models"]
        if (c := found["models"].get(m["id"])) is not None
    ]
    note = (
        f"{found['conversations']:,} held-out conversations. Bits per byte: of their last answers, with what ends them. Turns "
        f"ended: greedy answers that say something and end within {found['characters']:,} characters. Template kept: those "
        "without a control token inside."
    )
    left_out = int(max((c.get("chat_left_out", 0) for c in found["models"].values()), default=0))
    note += (
        f" {left_out} are left out: without an answer, or not to be written in the chat template." if left_out else ""
    )
    return make_table("Chat", ["model", "answers: bits per byte", "turns ended", "template kept"], rows, note)


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
    return make_table("Propagation", head, rows, note)


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
    return make_table("Benchmark", head, rows, note)


def _differences(report: Mapping[str, Any]) -> Table:
    found = report["benchmark"]
    titles = {m["id"]: m["title"] for m in report["models"]}
    lines = {m["id"]: {d["column"]: d for d in found["models"][m["id"]]["differences"]} for m in report["models"]}
    columns = {name: line for of_model in lines.values() for name, line in of_model.items()}
    # Tasks are shown where not all of their group were run.
    whole = {task for c in found["columns"] if c["name"] in columns for task in c["tasks"]}
    columns = {name: line for name, line in columns.items() if line["kind"] != "task" or name not in whole}
    lower = {c["name"] for c in found["columns"] if c["lower"]} | set(found["lower"])
    rows = [
        [m["title"], *(_difference(lines[m["id"]].get(name), name in lower) for name in columns)]
        for m in report["models"]
        if m["id"] != report["original"]
    ]
    head = [f"model − {titles[report['original']]}", *(line["title"] for line in columns.values())]
    note = (
        "Paired on the same documents, 95 % intervals. ▲ better, ▼ worse: significant at the 5 % level after Holm's correction "
        "within the groups. Where the settings differ (above), so does what is compared."
    )
    return make_table("Differences from the original", head, rows, note)


def _training_table(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, t in report["trainings"].items():
        loss = t.get("sample_loss", {"after": t.get("loss")})
        rows.append(
            [name, f"{t['steps']:,}", number(t.get("tokens"), ",.0f"), number(t.get("trained_tokens"), ",.0f"),
             number(t.get("examples"), ",.0f"), number(loss.get("before"), ".3f"), number(loss["after"], ".3f"),
             number(report["stages"][name]["seconds"], ",.0f")]
        )  # fmt: skip
    head = ["training", "steps", "tokens", "with loss", "examples", "loss before", "loss after", "seconds"]
    note = (
        "Loss of a calibration: mean over the assistant's tokens in the beginnings of the same training examples, before and "
        "after; of pretrain: at the last logged step. Seconds are those of the process that finished the stage."
    )
    return make_table("How long was trained", head, rows, note)


def _stage_table(report: Mapping[str, Any]) -> Table:
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in report["stages"].values():
        stages.setdefault(record["stage"], []).append(record)
    rows = [
        [name, str(len(records)), f"{sum(r['seconds'] for r in records):,.0f}", max(r["finished"] for r in records)]
        for name, records in stages.items()
    ]
    return make_table("Stages", ["stage", "steps", "seconds", "finished (UTC)"], rows)


def number(value: Any, form: str) -> str:
    """Return a number as a text, a dash for none."""
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
