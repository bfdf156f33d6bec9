"""The samples of a run as script files, from which its page loads what it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import fingerprint, slug
from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.question import labels_of, options_of, question_in
from darumeru.record.sample import Asked, Sample
from darumeru.web.pages import script, write_page

PIECE = 200
"""Samples in a script file."""
PIECE_CHARACTERS = 1_000_000


def piece_name(task: str) -> str:
    """Return the name of a task's files."""
    safe = slug(task)
    return safe if safe == task else f"{safe}-{fingerprint(task)[:8]}"


def document_keys(samples: Sequence[Sample]) -> list[str]:
    """Return the part of a sample's address that names its document: of its content, so that it is the same in every run.

    A document that is there several times is numbered; one whose row is not recorded is told by its question.
    """
    seen: Counter[str] = Counter()
    keys = []
    for sample in samples:
        key = fingerprint(sample.doc or [r.prompt[slice(*question_in(r.prompt))] for r in sample.requests])[:12]
        seen[key] += 1
        keys.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return keys


def _shown(sample: Sample, key: str, mark: float, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what the page shows of a sample."""
    return {
        "i": sample.id,
        "k": key,
        "m": round(mark, 4),
        "g": sample.gold,
        "r": sample.pred,
        "c": sample.stratum or sample.cluster,
        "s": {k: v if isinstance(v, int) or v in (0.0, 1.0) else round(v, 4) for k, v in sample.score.items()},
        "x": {k: v for k, v in sample.extra.items() if k != "options"},
        "q": [_asked(sample, request, labels) for request in sample.requests],
    }


def _asked(sample: Sample, request: Asked, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what the page shows of a request: `w` is where its question stands in the prompt, `o` what its `l` are of."""
    start, end = question_in(request.prompt)
    options = options_of(sample, request, request.prompt[start:end], labels)
    return {
        "p": request.prompt,
        "w": [start, end],
        "n": request.prompt_tokens,
        "f": request.num_fewshot,
        "t": request.truncated,
        "a": request.answer.get("text"),
        "e": request.answer.get("finish"),
        "k": len(request.answer.tokens),
        "l": [f"{v:.3f}" for v in request.answer.logprobs],
        **({"o": options} if options else {}),
        **_thought(request),
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
    """Write a run's samples as script files, the worst first, and an index of their scores: only what is shown is loaded.

    Beside each task's files lie the keys of its documents in the same order, for whoever comes by a sample's address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for task, rows in samples.items():
        record, labels = entry.tasks[task].record, labels_of(rows)
        keyed = zip(rows, document_keys(rows), strict=True)
        better = 1 if record.higher_is_better else -1
        marked = sorted(((s.mark(record.primary), s, key) for s, key in keyed), key=lambda found: better * found[0])
        # Bits and log-probabilities are neither right nor wrong.
        shares = record.higher_is_better and all(0 <= mark <= 1 for mark, _, _ in marked)
        name, pieces, piece, size = piece_name(task), [], [], 0
        for mark, sample, key in marked:
            piece.append(_shown(sample, key, mark, labels))
            size += sum(len(r.prompt) + len(r.answer.thought) for r in sample.requests)
            if len(piece) == PIECE or size > PIECE_CHARACTERS:
                pieces.append(piece)
                piece, size = [], 0
        pieces += [piece] if piece else []
        for number, part in enumerate(pieces):
            write_page(folder / f"{name}-{number}.js", script(f"{name}/{number}", part))
        write_page(folder / f"{name}-keys.js", script(f"{name}/keys", [key for _, _, key in marked]))
        index.append(
            {"task": task, "file": name, "metrics": record.primary, "shares": shares, "sizes": [len(p) for p in pieces],
             "marks": [round(m, 3) for m, _, _ in marked]}
        )  # fmt: skip
    write_page(folder / "index.js", script("index", {"model": entry.name, "tasks": index}))
