"""Facts that a team knows of its models beside the records, and what the entries of a board are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from darumeru.errors import UserError
from darumeru.files import read_yaml
from darumeru.leaderboard.entry import Entry, data_title
from darumeru.leaderboard.thinking import thinking_title


@dataclass(frozen=True)
class About:
    """Facts that a team knows of a model and the record does not say; see `read_about`."""

    name: str | None = None
    base: str | None = None
    vocab: str | None = None
    method: str | None = None
    url: str | None = None
    note: str | None = None


def read_about(file: Path) -> dict[str, About]:
    """Model name or run id → what to show of it, from a YAML file.

    Keys of an entry: name, base, vocab, method, note, and url (https only).

    Raises:
        UserError: it is missing, no YAML mapping, or has a key that is not known.
    """
    from darumeru.errors import unknown

    content = read_yaml(file)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UserError(
            f"'{file}' must map model names or run ids to what is known of them, e.g. 'smol: {{name: SmolLM}}'."
        )
    known: dict[str, About] = {}
    for key, value in content.items():
        for name in value:
            if name not in About.__dataclass_fields__:
                raise unknown(f"key for '{key}' in '{file}'", str(name), About.__dataclass_fields__)
        about = About(**{str(k): str(v) for k, v in value.items() if v is not None})
        if about.url and not about.url.startswith("https://"):
            raise UserError(f"'{file}', '{key}': url '{about.url}' must begin with https://.")
        known[str(key)] = about
    return known


def describe(entry: Entry, about: Mapping[str, About]) -> Entry:
    """Return the entry with what is known of it, by run id (its prefix) or model name."""
    for key, value in about.items():
        if _fits(key, entry):
            known = {k: v for k in About.__dataclass_fields__ if (v := getattr(value, k)) is not None}
            entry = replace(entry, **known)
    return entry


def _fits(key: str, entry: Entry) -> bool:
    return entry.name == key or (len(key) >= 6 and entry.id.startswith(key[:10]))


def unused(about: Mapping[str, About], entries: Sequence[Entry]) -> list[str]:
    """Return the names and ids of which nothing is on the board."""
    return [key for key in about if not any(_fits(key, entry) for entry in entries)]


def distinct_names(entries: Sequence[Entry]) -> list[Entry]:
    """Return runs with distinct names: where two runs of one name differ, what tells them apart is added.

    The first of these that suffices: step of training, import, thinking, few-shot examples, data, kind of number, engine, limit,
    run id.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.name, []).append(entry)
    renamed: dict[str, str] = {}
    for same in groups.values():
        own = [e for e in same if not e.published]
        if len(own) < 2:
            continue
        parts: dict[str, list[str]] = {e.id: [] for e in own}
        for feature in _FEATURES:
            values = {e.id: feature(e) for e in own}
            if len(set(values.values())) > 1:
                for e in own:
                    parts[e.id].append(values[e.id])
                if len({tuple(p) for p in parts.values()}) == len(own):
                    break
        renamed |= {e.id: f"{e.name} ({', '.join(told)})" for e in own if (told := list(filter(None, parts[e.id])))}
    return [replace(e, name=renamed[e.id]) if e.id in renamed else e for e in entries]


_FEATURES: tuple[Callable[[Entry], str], ...] = (
    lambda e: f"step {t.step}" if (t := e.stated.training) and t.step is not None else "",
    lambda e: f"imported from {e.tool}" if e.imported else "",
    lambda e: thinking_title(e.stated),
    lambda e: f"{e.num_fewshot}-shot",
    lambda e: data_title(e.stated),
    lambda e: str(e.dtype),
    lambda e: e.stated.engine.name,
    lambda e: f"limit {e.stated.limit}" if e.stated.limit else "",
    lambda e: e.id[:6],
)
