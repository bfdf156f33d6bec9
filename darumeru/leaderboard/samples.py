"""The samples of a run as script files, from which its page loads what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import fingerprint, slug
from darumeru.leaderboard.entry import Entry
from darumeru.record.sample import Asked, Sample
from darumeru.web.pages import script, write_page

PIECE = 200
"""Samples in a script file."""
PIECE_CHARACTERS = 1_000_000


def piece_name(task: str) -> str:
    """Return the name of a task's files."""
    safe = slug(task)
    return safe if safe == task else f"{safe}-{fingerprint(task)[:8]}"


def _shown(sample: Sample, mark: float) -> dict[str, Any]:
    """Return what the page shows of a sample."""
    return {
        "i": sample.id,
        "m": round(mark, 4),
        "g": sample.gold,
        "r": sample.pred,
        "c": sample.stratum or sample.cluster,
        "s": {k: v if isinstance(v, int) or v in (0.0, 1.0) else round(v, 4) for k, v in sample.score.items()},
        "x": sample.extra,
        "q": [
            {
                "p": request.prompt,
                "n": request.prompt_tokens,
                "f": request.num_fewshot,
                "t": request.truncated,
                "a": request.answer.get("text"),
                "e": request.answer.get("finish"),
                "k": len(request.answer.tokens),
                "l": [f"{v:.3f}" for v in request.answer.logprobs],
            }
            | _thought(request)
            for request in sample.requests
        ],
    }


def _thought(request: Asked) -> dict[str, Any]:
    """Return the thought before an answer, where there is one: text, tokens, whether it did not end, what was put behind it."""
    answer = request.answer
    if not answer.thought_tokens and not answer.unfinished:
        return {}
    return {
        "h": answer.thought,
        "hk": len(answer.thought_tokens),
        "hu": answer.unfinished,
        "hb": request.get("after_thought"),
    }


def write_pieces(folder: Path, entry: Entry, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Write a run's samples as script files, the worst first, and an index of their scores: only what is shown is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for task, rows in samples.items():
        primary = entry.tasks[task].record.primary
        marked = sorted(((s.mark(primary), s) for s in rows), key=lambda pair: pair[0])
        name, pieces, piece, size = piece_name(task), [], [], 0
        for mark, sample in marked:
            piece.append(_shown(sample, mark))
            size += sum(len(r.prompt) + len(r.answer.thought) for r in sample.requests)
            if len(piece) == PIECE or size > PIECE_CHARACTERS:
                pieces.append(piece)
                piece, size = [], 0
        pieces += [piece] if piece else []
        for number, part in enumerate(pieces):
            write_page(folder / f"{name}-{number}.js", script(f"{name}/{number}", part))
        index.append(
            {"task": task, "file": name, "metrics": primary, "sizes": [len(p) for p in pieces],
             "marks": [round(m, 3) for m, _ in marked]}
        )  # fmt: skip
    write_page(folder / "index.js", script("index", {"model": entry.name, "tasks": index}))
