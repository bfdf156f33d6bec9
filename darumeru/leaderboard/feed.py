"""feed.json: what changed on a board from build to build, as JSON Feed 1.1 (jsonfeed.org/version/1.1).

The build before is the folder that a new one replaces: its table.json says what was there, its feed.json what has been told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from darumeru.files import fingerprint

VERSION = "https://jsonfeed.org/version/1.1"
ITEMS = 100
"""The most items that a feed keeps; the oldest are left out."""
_SHOWN = 4
"""Scores are compared as they are shown: that many digits."""


def feed_json(table: Mapping[str, Any], before: Path | None, url: str | None = None) -> dict[str, Any]:
    """Return the feed of a board: rows that were added and rows whose scores changed, the newest first.

    Args:
        table: the board as `table_json` returns it.
        before: folder of the build before; what cannot be read there counts as nothing.
        url: address at which the site will be. A feed names addresses in full, so without it its items have none.
    """
    known = {str(r["id"]): r for r in _list(before, "table.json", "rows") if "id" in r}
    items = [kept for item in _list(before, "feed.json", "items") if (kept := _kept(item)) is not None]
    told = {item["id"] for item in items}
    new = []
    for row in table["rows"]:
        if row["published"]:
            continue
        old = known.get(row["id"])
        if old is not None:
            new += [_untold(item, told)] if (item := _changed(row, old)) else []
        elif (item := _added(row))[
            "id"
        ] not in told:  # else it was away for a while, as a record is that is scored anew
            new.append(item)
    new.sort(key=lambda item: (item.get("date_published", ""), item["id"]), reverse=True)
    items = [*new, *items][:ITEMS]
    feed: dict[str, Any] = {"version": VERSION, "title": table["title"]}
    if url:
        home = url if url.endswith("/") else url + "/"
        feed |= {"home_page_url": home, "feed_url": urljoin(home, "feed.json")}
        items = [item | {"url": f"{home}index.html#row={quote(item['_darumeru']['row'])}"} for item in items]
    return feed | {"items": items}


def _list(folder: Path | None, name: str, key: str) -> list[dict[str, Any]]:
    """Return the objects that a file of the build before lists under a key; none where there is no such build."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))[key] if folder else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _untold(item: dict[str, Any], told: Set[str]) -> dict[str, Any]:
    """Return an item with an id of its own: scores may come back to what they were."""
    ids = (item["id"] if number == 1 else f"{item['id']}-{number}" for number in count(1))
    return item | {"id": next(id_ for id_ in ids if id_ not in told)}


def _kept(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return an item of the feed before without its address, which may be another now; None if it is none of ours."""
    own = item.get("_darumeru")
    fields = {key: item.get(key) for key in ("id", "title", "content_text")}
    if not all(isinstance(v, str) for v in fields.values()) or not isinstance(own, dict):
        return None
    if not isinstance(own.get("row"), str) or own.get("change") not in ("added", "changed"):
        return None
    date = item.get("date_published")
    dated = {"date_published": date} if isinstance(date, str) else {}
    return {**fields, **dated, "tags": [own["change"]], "_darumeru": {"row": own["row"], "change": own["change"]}}


def _item(row: Mapping[str, Any], change: str, title: str, text: str) -> dict[str, Any]:
    """Return an item; its id is of the row and its scores."""
    finished = str(row.get("finished") or "")
    dated = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$", finished)
    return {
        "id": f"{change}-{row['id']}-{fingerprint(_values(row))[:12]}",
        "title": title,
        "content_text": text,
        **({"date_published": finished} if dated else {}),
        "tags": [change],
        "_darumeru": {"row": row["id"], "change": change},
    }


def _values(row: Mapping[str, Any]) -> dict[str, float | None]:
    values = {name: score.get("value") for name, score in row["scores"].items() if isinstance(score, dict)}
    return {name: round(v, _SHOWN) if isinstance(v, int | float) else None for name, v in values.items()}


def _added(row: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(row)
    mean = values.get("micro_avg")
    scores = ", ".join(f"{name} {_number(value)}" for name, value in values.items())
    title = f"{row['name']}: new" + ("" if mean is None else f", mean {_number(mean)}")
    return _item(row, "added", title, f"{row['name']} ({row['mode']}, {row['shots']}-shot): {scores or 'no scores'}.")


def _changed(row: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what to tell of a row that was there before; None if its scores are the same."""
    try:
        before = _values(old)
    except (KeyError, TypeError, AttributeError):
        return None
    now = _values(row)
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not differing:
        return None
    moves = ", ".join(f"{name} {_number(before.get(name))} → {_number(now.get(name))}" for name in differing)
    return _item(row, "changed", f"{row['name']}: {len(differing)} scores changed", f"{row['name']}: {moves}.")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
