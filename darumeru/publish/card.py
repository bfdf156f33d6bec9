"""A model card with a section of scores between two markers; the rest of the card stays byte by byte."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from darumeru.errors import UserError

if TYPE_CHECKING:
    from darumeru.record.run import Run
    from darumeru.record.scores import Scores

BEGIN, END = "<!-- darumeru: begin -->", "<!-- darumeru: end -->"
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.S | re.M)


def section(runs: Sequence[Run], records: str | None = None) -> str:
    """Return the section: a table of each run, and how it was made.

    Args:
        runs: finished runs of the model.
        records: where their records are, an address.
    """
    from importlib.metadata import version

    from darumeru.leaderboard.tables import run_markdown
    from darumeru.web.text import escape_markdown

    parts = ["## Evaluation with Darumeru", ""]
    for run in runs:
        header, scores = run.header, run.scores
        parts += [run_markdown(run).rstrip(), ""]
        suite = escape_markdown(f"{header.suite.name} {header.suite.version or ''}".rstrip())
        finished = (scores.finished or "").partition("T")[0]
        facts = [f"Suite {suite}", f"engine {header.engine.name}", *([f"finished {finished}"] if finished else [])]
        parts += [
            f"{', '.join(facts)}; {_intervals(scores)}; run `{(header.id or '')[:10]}`.",
            "",
        ]
    if records:
        parts += [f"Records with every prompt and answer: <{records}>", ""]
    parts += [f"Made by `darumeru publish`, version {version('darumeru')}."]
    return "\n".join(parts)


def _intervals(scores: Scores) -> str:
    """Return how the intervals were made (`scoring.estimate`); records of earlier versions have percentiles."""
    if any(task.score.method for task in scores.tasks.values()):
        how = "Wilson's for shares of right answers, else Student's t or a posterior, with the standard error of"
    else:
        how = "percentiles of"
    return f"95 % intervals: {how} a bootstrap over independent units"


def with_section(card: bytes, text: str) -> bytes:
    """Return a card with the section: in place of the one between the markers, else at its end.

    Args:
        card: of the card; none is an empty one.
        text: the section, without markers; it gets the card's line ends.

    Raises:
        UserError: the card is not UTF-8, its metadata are not YAML, or its markers are not one pair.
    """
    try:
        old = card.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The card is not UTF-8 (byte {error.start}). Convert it first; nothing was changed.") from None
    _check_metadata(old)
    line = "\r\n" if "\r\n" in old else "\n"
    whole = f"{BEGIN}\n{text.strip()}\n{END}".replace("\n", line)
    begin, end = old.count(BEGIN), old.count(END)
    if begin == end == 0:
        gap = "" if not old else line if old.endswith("\n") else 2 * line
        return f"{old}{gap}{whole}{line}".encode()
    if not begin == end == 1 or old.index(END) < old.index(BEGIN):
        raise UserError(
            f"The card has {begin} of the marker '{BEGIN}' and {end} of '{END}', and one pair is needed, in this order. "
            "Put it right, or take both out to have the section at the end; nothing was changed."
        )
    return (old[: old.index(BEGIN)] + whole + old[old.index(END) + len(END) :]).encode()


def _check_metadata(card: str) -> None:
    """Refuse a card whose metadata the hub would not take."""
    import yaml

    match = _FRONT.match(card)
    if match is None:
        if re.match(r"\ufeff?---[ \t]*\r?\n", card):
            raise UserError("The card's metadata begin with '---' and do not end so. Repair them; nothing was changed.")
        return
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 2}: {getattr(error, 'problem', '')}" if mark else str(error).partition("\n")[0]
        raise UserError(
            f"The card's metadata are not valid YAML ({where}). Repair them; nothing was changed."
        ) from None
    if metadata is not None and not isinstance(metadata, dict):
        raise UserError("The card's metadata are YAML, but no mapping of keys. Repair them; nothing was changed.")
