"""What a change of vocabulary cost and saved: original, control and adapted model, from the histories of two trainings.

The original has its own vocabulary and is not trained; the control is the original trained on the same text; the adapted model
has the new vocabulary. `adaptation.json` has every figure, `adaptation.md` and `adaptation.svg` are rendered from it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from lep.measure.held_out import BITS, SHARE, HeldOut
from lep.model.manifest import read_manifest, versions
from lep.pipeline.pages import WEB, Table, make_table, number
from lep.pipeline.price import shape_of
from lep.pretraining.claim import measured_texts
from lep.pretraining.schedule import parse_schedule

FOLDER = "adaptation"


def write_adaptation(original: Path, control: Path, adapted: Path, held_out: HeldOut) -> Path:
    """Write the report of an adaptation and its control into `adapted/adaptation`; returns its Markdown page.

    Args:
        original: the model before the change of vocabulary.
        control: the output folder of the control's training.
        adapted: that of the adapted model's.
        held_out: the texts that both were measured on.
    """
    from darumeru.files import write_json, write_text
    from darumeru.web.pages import render_page

    report = collect(original, control, adapted, held_out)
    folder = adapted / FOLDER
    folder.mkdir(exist_ok=True)
    write_json(folder / "adaptation.json", report)
    page = folder / "adaptation.md"
    write_text(page, render_page(WEB, "adaptation.md.j2", r=report, tables=write_figure(report, folder)))
    return page


def write_figure(report: Mapping[str, Any], folder: Path) -> list[Table]:
    """Write the figure, `adaptation.svg`, into a folder; returns the tables that go with it."""
    from darumeru.files import write_text
    from darumeru.leaderboard.figures import render

    svg, _ = render(figure(report))
    write_text(folder / "adaptation.svg", svg)
    first, *rest = tables_of(report)
    first["figure"] = ("adaptation.svg", "Bits per byte of original, control and adapted model over text read")
    return [first, *rest]


def collect(original: Path, control: Path, adapted: Path, held_out: HeldOut) -> dict[str, Any]:
    """Return all figures of the report. Arguments as in `write_adaptation`.

    Texts that were not measured along both trainings, or were others then, are left out and named.

    Raises:
        UserError: no text is left.
    """
    curves = {folder: _curve(folder, held_out.fingerprints) for folder in (control, adapted)}
    texts = [
        name
        for name in held_out.pieces
        if all(points and all(name in point[BITS] for point in points) for points in curves.values())
    ]
    left_out = [name for name in held_out.pieces if name not in texts]
    if not texts:
        raise UserError(
            f"The trainings in {adapted.name} and {control.name} were not measured on {', '.join(left_out)} as the text is now, "
            "so what the vocabulary costs is not known. Name the held-out texts of the trainings, or do without a control."
        )
    held_out = replace(held_out, pieces={name: held_out.pieces[name] for name in texts})
    models = {
        name: _model(folder, held_out, curves.get(folder))
        for name, folder in (("original", original), ("control", control), ("adapted", adapted))
    }
    # Untrained, the control is the original, measured as it is.
    models["original"]["curve"] = models["control"]["curve"][:1]
    costs = {name: _cost(name, models) for name in texts}
    return {
        "format": 1, "name": adapted.name, **models, "texts": costs, "left_out": left_out, "versions": versions()
    }  # fmt: skip


def _model(folder: Path, held_out: HeldOut, curve: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """A model: its curve where it was trained, and its tokens and operations per byte of each text."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    shape = shape_of(str(folder))
    per_byte = {}
    for name, pieces in held_out.pieces.items():
        tokens = sum(len(tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in pieces)
        per_byte[name] = tokens / sum(len(piece.encode()) for piece in pieces)
    found: dict[str, Any] = {
        "name": folder.resolve().name,
        "tokens_per_byte": per_byte,
        "flop_per_byte": {name: share * shape.forward(shape.rows) for name, share in per_byte.items()},
    }
    if curve is not None:
        kept = [{**point, BITS: {name: point[BITS][name] for name in held_out.pieces}} for point in curve]
        found |= {"train": (read_manifest(folder) or {})["settings"]["train"], "curve": kept}
    return found


def _curve(folder: Path, texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """What was measured along a training, by steps: text read, tokens, seconds, operations, bits per byte.

    Args:
        folder: of the training.
        texts: fingerprints of the texts as they are now; those that it was measured on as others are not in the curve.
    """
    from darumeru.files import read_jsonl

    settings, shape = (read_manifest(folder) or {})["settings"], shape_of(str(folder))
    each = sum(share * shape.training(shape.rows, what) for what, share in parse_schedule(settings["train"]))
    known = measured_texts(folder) or {name: texts.get(name, "") for name in settings.get("held_out", texts)}
    same = [name for name, text in texts.items() if known.get(name) == text]
    first = next(iter(known), "")
    points = []
    for _, entry in read_jsonl(folder / "history.jsonl"):
        if f"eval_{BITS}" not in entry:
            continue
        tokens = int(entry["num_input_tokens_seen"])
        points.append(
            {
                "step": int(entry["step"]),
                "characters": int(entry["characters"]),
                "tokens": tokens,
                "seconds": float(entry["seconds"]),
                "flop": tokens * each,
                BITS: _bits(entry, same, first),
                SHARE: entry.get(f"eval_{SHARE}"),
            }
        )
    return points


def _bits(entry: Mapping[str, Any], texts: Collection[str], first: str) -> dict[str, float]:
    """Bits per byte of texts in an entry of the log; one that names none was of the first text alone."""
    named = {name: entry[key] for name in texts if (key := f"eval_{BITS}_{name}") in entry}
    alone = first in texts and not any(key.startswith(f"eval_{BITS}_") for key in entry)
    return {name: float(bits) for name, bits in named.items()} | (
        {first: float(entry[f"eval_{BITS}"])} if alone else {}
    )


def _cost(text: str, models: Mapping[str, Any]) -> dict[str, Any]:
    """What the vocabulary costs and saves on a text."""
    original = models["original"]["curve"][0][BITS][text]
    curve = [(point, point[BITS][text]) for point in models["adapted"]["curve"]]
    control = models["control"]["curve"][-1][BITS][text]
    saved = models["original"]["flop_per_byte"][text] - models["adapted"]["flop_per_byte"][text]
    trained = models["adapted"]["curve"][-1]["flop"]
    return {
        "original": original,
        "control": control,
        "adapted_before": curve[0][1],
        "adapted": curve[-1][1],
        "cost_at_the_change": curve[0][1] - original,
        "cost_at_the_end": curve[-1][1] - control,
        "tokens_to_the_original": _reached([(point["tokens"], bits) for point, bits in curve], original),
        "tokens_to_the_control": _reached([(point["tokens"], bits) for point, bits in curve], control),
        "flop_ratio": models["adapted"]["flop_per_byte"][text] / models["original"]["flop_per_byte"][text],
        "bytes_to_pay_back": trained / saved if saved > 0 else None,
    }


def _reached(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Where a falling curve first is at a level or below, between two points by a straight line; None where it never is."""
    before: tuple[float, float] | None = None
    for at, bits in curve:
        if bits <= level:
            if before is None or before[1] == bits:
                return at
            return before[0] + (at - before[0]) * (before[1] - level) / (before[1] - bits)
        before = at, bits
    return None


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """Return what the page shows as tables."""
    texts = report["texts"]
    rows = [
        [name, f"{t['original']:.4f}", f"{t['control']:.4f}", f"{t['adapted_before']:.4f}", f"{t['adapted']:.4f}",
         f"{t['cost_at_the_change']:+.4f}", f"{t['cost_at_the_end']:+.4f}"]
        for name, t in texts.items()
    ]  # fmt: skip
    head = [
        "bits per byte",
        "original",
        "control",
        "adapted, before",
        "adapted",
        "cost at the change",
        "cost at the end",
    ]
    left_out = ", ".join(report["left_out"])
    bits = make_table(
        "What the vocabulary costs", head, rows,
        "Cost at the change: adapted before any training, less the original. At the end: adapted less control, both trained "
        "on the same text; negative where the new vocabulary is ahead.",
        f"Left out, since the trainings were not measured on it as it is now: {left_out}." if left_out else "",
    )  # fmt: skip
    rows = [
        [name, *(f"{report[model]['tokens_per_byte'][name]:.4f}" for model in ("original", "adapted")),
         f"×{1 / t['flop_ratio']:.2f}", number(t["tokens_to_the_original"], ",.0f"),
         number(t["tokens_to_the_control"], ",.0f"), number(t["bytes_to_pay_back"], ",.3g")]
        for name, t in texts.items()
    ]  # fmt: skip
    head = [
        "speed",
        "tokens per byte, original",
        "adapted",
        "bytes per operation, adapted : original",
        "training tokens until the original is reached",
        "until the trained control is",
        "bytes to pay the training back",
    ]
    speed = make_table(
        "What it saves, and from when on", head, rows,
        "Operations: 2N + 2Vd a token. From the tokens in the first of the last three columns on, the adapted model needs no "
        "more bits than the original and fewer operations a byte; – where it was not reached. Bytes to pay back: the "
        "training's operations over the operations saved on each byte read or written.",
    )  # fmt: skip
    rows = []
    for model in ("control", "adapted"):
        last = report[model]["curve"][-1]
        keys = ("characters", "tokens", "flop", "seconds")
        rows.append([model, report[model]["train"], *(f"{last[key]:,.4g}" for key in keys)])
    head = ["training", "what", "characters", "tokens", "operations", "seconds"]
    return [bits, speed, make_table("Both trainings", head, rows)]


def figure(report: Mapping[str, Any]) -> dict[str, Any]:
    """Bits per byte over text read, a panel for each held-out text, as a Vega-Lite specification."""
    import altair as alt

    from darumeru.leaderboard.figures import CONFIG

    longest = max(report[model]["curve"][-1]["characters"] for model in ("control", "adapted"))
    values = [
        {"model": model, "text": text, "characters": point["characters"] / 1e6, "bits": bits}
        for model in ("control", "adapted")
        for point in report[model]["curve"]
        for text, bits in point[BITS].items()
    ] + [
        {"model": "original", "text": text, "characters": at / 1e6, "bits": t["original"]}
        for text, t in report["texts"].items()
        for at in (0, longest)
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(point=True)
        .encode(
            x=alt.X("characters:Q", title="characters read in training, millions"),
            y=alt.Y("bits:Q", title="bits per byte (lower is better)", scale=alt.Scale(zero=False)),
            color=alt.Color("model:N", sort=["original", "control", "adapted"], title=None),
            strokeDash=alt.StrokeDash("model:N", sort=["original", "control", "adapted"], legend=None),
            column=alt.Column("text:N", sort=list(report["texts"]), title=None),
        )
        .resolve_scale(y="independent")
        .properties(width=280, height=220)
        .configure(**CONFIG)
    )
    specification: dict[str, Any] = chart.to_dict()
    return specification
