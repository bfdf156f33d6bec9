"""What differs between two runs beside the model, and what puts the numbers of either in doubt."""

from __future__ import annotations

from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.thinking import Spent

_VERSIONS = {
    "version": "Other versions of the tasks, which ask differently: {pairs}. Differences are not the models' alone.",
    "scoring": "Scored by other rules, so nothing is paired: {pairs}. 'darumeru rescore' brings a run to the current ones.",
}


def _settings(entry: Entry) -> dict[str, str]:
    """Return what should be equal where models are compared, as text by its name."""
    header = entry.stated
    return {
        "mode": header.mode,
        "num_fewshot": str(header.num_fewshot),
        "max_prompt_len": str(header.max_prompt_len),
        "limit": str(header.limit),
        "How answers were drawn": header.how_drawn,
        "Number of repeats": str(header.repeats),
        "Suite": header.suite.name,
        "Engine": ", ".join(filter(None, (header.engine.name, header.engine.version))),
        "dtype": str(entry.dtype),
        "Setting of the engine": ", ".join(f"{k}={v}" for k, v in sorted(header.engine.model_args.items())) or "none",
        "Adapter": (header.model.adapter_sha256 or "none")[:12],
    }


def remarks_on(a: Entry, b: Entry) -> list[str]:
    """Return differences of setting that a reader must know, and what puts numbers in doubt."""
    one, two = _settings(a), _settings(b)
    found = [f"{name} differs: {one[name]} against {two[name]}." for name in one if one[name] != two[name]]
    if (x := a.stated.how_thought) != (y := b.stated.how_thought):
        found.append(f"Thinking differs: {x} against {y}. What is compared is the model with its way of answering.")
    found += [
        _unfinished(side, entry.spent) for side, entry in (("A", a), ("B", b)) if entry.spent and entry.spent.unfinished
    ]
    found += [
        f"{side}: some answers are approximate, as the server gives no exact ones: {', '.join(entry.approximate)}."
        for side, entry in (("A", a), ("B", b))
        if entry.approximate
    ]
    worded = [t for t in a.tasks if t in b.tasks and a.stated.tasks[t].wording != b.stated.tasks[t].wording]
    for what in ("version", "scoring"):
        other = [t for t in a.tasks if t in b.tasks and getattr(a.tasks[t], what) != getattr(b.tasks[t], what)]
        if other:
            pairs = ", ".join(f"{t} ({getattr(a.tasks[t], what)} against {getattr(b.tasks[t], what)})" for t in other)
            found.append(_VERSIONS[what].format(pairs=pairs))
    if worded:
        found.append(f"Worded differently: {', '.join(worded)}.")
    return found


def _unfinished(side: str, spent: Spent) -> str:
    finished = (
        f" On finished answers alone its score is {score:.3f}."
        if (score := spent.finished.get("suite")) is not None
        else ""
    )
    return f"{side}: {spent.unfinished:.1%} of the thoughts did not end; these answers are empty and count as wrong.{finished}"
