"""The pages of a run on the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darumeru.leaderboard.board import Board, Row
from darumeru.leaderboard.entry import Bounded, Entry, data_title
from darumeru.leaderboard.samples import piece_name
from darumeru.leaderboard.tables import label
from darumeru.record.scores import Mean
from darumeru.web.pages import render_page, write_page

WEB = Path(__file__).parent / "web"
"""The templates and scripts of the board's own pages."""


def write_run(folder: Path, row: Row, board: Board, data: str, samples: bool) -> None:
    """Write a run's page and, with `samples`, the page that shows its samples.

    Args:
        folder: of the run on the site.
        row: the run in its place.
        board: all others.
        data: title of the documents.
        samples: whether the site holds samples.
    """
    entry = row.entry
    own = entry.record.groups if entry.record else {}
    groups = [
        _mean(entry, g.name, g.title, own.get(g.name)) | {"tasks": [t for t in g.tasks if t in entry.tasks]}
        for g in board.suite.groups
    ]
    whole = _mean(entry, "suite", board.suite.summary, entry.record.suite if entry.record else None)
    others = [t for t in entry.tasks if t not in board.tasks]
    if others:
        groups.append({"title": "Other", "score": None, "tasks": others})
    page = render_page(
        WEB, "run.html.j2", row=row, entry=entry, board=board, root="../..", groups=groups, whole=whole, data=data,
        samples=samples, facts=run_facts(entry), files={t: piece_name(t) for t in entry.tasks}, label=label(entry),
    )  # fmt: skip
    write_page(folder / "index.html", page)
    if samples:
        write_page(
            folder / "samples.html", render_page(WEB, "samples.html.j2", entry=entry, root="../..", label=label(entry))
        )


def _mean(entry: Entry, column: str, title: str, own: Mean | None) -> dict[str, Any]:
    """Return a mean for a run's page: the board's, or else the run's own under the title that says over how many tasks it is."""
    repeats = own.repeats if own and own.title == title else None
    if column in entry.scores:
        return {"title": title, "score": entry.scores[column], "repeats": repeats}
    if own is None or own.value is None or own.title in ("", title):
        return {"title": title, "score": None, "repeats": None}
    return {"title": own.title, "score": Bounded(own.value, own.low, own.high), "repeats": own.repeats}


def _thinking_facts(entry: Entry) -> list[tuple[str, Any]]:
    """Return how a model thought and what that cost."""
    facts, spent = entry.stated.thinking, entry.spent
    assert facts is not None  # noqa: S101 - asked of models that can think
    told = [
        ("thinking", facts.mode), ("budget, tokens", f"{facts.budget:,}" if facts.budget else None), ("end", facts.end),
        ("given to the template", ", ".join(f"{k} = {v}" for k, v in facts.template_args.items())),
    ]  # fmt: skip
    if spent is None:
        return told
    finished = spent.finished.get("suite")
    return [
        *told,
        ("tokens a document", f"{spent.tokens:,.1f}"),
        ("of these in thoughts", f"{spent.thought:,.1f}"),
        ("seconds a document", None if spent.seconds is None else f"{spent.seconds:.3f}"),
        ("unfinished thoughts", f"{spent.unfinished:.1%}"),
        ("score on finished answers", None if finished is None else f"{finished:.3f}"),
    ]


def run_facts(entry: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return settings and surroundings of a run for its page; no paths of the machine that made it."""
    header, scores = entry.stated, entry.record
    model, where = header.model, header.where
    engine = scores.engine if scores else {}
    training = header.training.to_json() if header.training else {}

    def known(pairs: list[tuple[str, Any]]) -> list[tuple[str, str]]:
        return [(k, str(v)) for k, v in pairs if v not in (None, "", {}, [])]

    shots = [t.record.fewshot_used for t in entry.tasks.values()]
    seen = f"{min(shots):.1f} – {max(shots):.1f}" if shots and header.num_fewshot else ""
    return [
        ("model", known([
            ("name", model.name), ("revision", model.revision), ("type", model.model_type),
            ("parameters", f"{model.parameters:,}" if model.parameters else None),
            ("vocabulary", f"{model.vocab_size:,}" if model.vocab_size else None),
            ("context", model.context_len),
            ("weights sha256", model.weights_sha256), ("tokenizer sha256", model.tokenizer_sha256),
            ("chat template sha256", model.chat_template_sha256), ("base", entry.base),
            ("vocabulary method", entry.vocab), ("training", entry.method), ("note", entry.note),
            *((f"training {k}", v) for k, v in training.items() if not isinstance(v, dict | list)),
        ])),
        ("setting", known([
            ("mode", header.mode), ("few-shot examples asked", header.num_fewshot),
            ("few-shot examples used, by task", seen), ("data", data_title(header)), ("limit", header.limit),
            ("longest prompt", header.max_prompt_len), ("seed", header.seed if "seed" in header else None),
            ("generation", ", ".join(f"{k} = {v}" for k, v in header.generation.items())),
            ("suite", f"{header.suite.name} {header.suite.version or ''}"),
            ("chat template arguments", ", ".join(f"{k} = {v}" for k, v in header.chat_template_args.items())),
        ])),
        *([("thinking", known(_thinking_facts(entry)))] if header.thinking else []),
        ("environment", known([
            ("engine", header.engine.version), ("dtype", engine.get("dtype") or header.engine.dtype),
            ("device", engine.get("device") or header.engine.device),
            ("engine arguments", ", ".join(f"{k}={v}" for k, v in header.engine.model_args.items())),
            ("python", where.get("python")), ("platform", where.get("platform")),
            ("packages", ", ".join(f"{k} {v}" for k, v in (where.get("packages") or {}).items())),
            ("wall time", f"{scores.wall_seconds:,.0f} s" if scores and scores.wall_seconds else None),
            ("tokens per second", f"{entry.tokens_per_second:,.0f}" if entry.tokens_per_second else None),
            ("started", header.started), ("finished", scores.finished if scores else None), ("run id", header.id),
        ])),
    ]  # fmt: skip
