"""Runs to the hub: a section of the model's card and its `.eval_results`, and the records; each a pull request."""

from __future__ import annotations

import difflib
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darumeru import hub
from darumeru.errors import UserError
from darumeru.exports import NothingToTellError, as_text
from darumeru.files import read_json, write_json
from darumeru.publish.card import section, with_section
from darumeru.record.folder import seal
from darumeru.record.run import Run, load_run

log = logging.getLogger(__name__)

CARD = "README.md"
_SHOWN = (".md", ".yaml")
"""Files whose differences are shown line by line."""


@dataclass(frozen=True)
class Change:
    """What a repository is to get."""

    repository: str
    kind: hub.Kind
    title: str
    commit: str
    """What is changed."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path → new content; files that are there so already are left out."""
    old: dict[str, bytes] = field(default_factory=dict)
    """Path → content now, of those shown line by line."""
    new: frozenset[str] = frozenset()
    """Paths that are not there yet."""

    def diff(self) -> str:
        """Return the change as text: lines of cards and YAML, names and sizes of other files."""
        parts = []
        for path, content in self.files.items():
            if path.endswith(_SHOWN):
                parts.append(text_diff(path, self.old.get(path, b""), content))
            else:
                parts.append(f"{'new file' if path in self.new else 'changed'}: {path} ({len(content):,} bytes)")
        return "\n".join(parts)

    def open(self) -> str:
        """Open the pull request and return its address."""
        return hub.open_pull_request(
            self.repository, self.kind, self.files, title=self.title, description="", commit=self.commit
        )


def text_diff(path: str, old: bytes, new: bytes) -> str:
    """Return the difference of a file's contents, line by line."""
    before, after = (text.decode("utf-8", "replace").splitlines() for text in (old, new))
    return "\n".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}", lineterm=""))


def plan_card(folders: Sequence[Path], repository: str, records: str | None = None) -> Change:
    """Return what a model's repository is to get of runs: the section of its card, and the scores for the hub's own table.

    Args:
        folders: of finished runs of one model.
        repository: `owner/name`.
        records: repository of the records, a data set.

    Raises:
        UserError: a run that cannot be published, a card that cannot be changed, no such repository.
        DarumeruError: the hub cannot be reached; a record was changed.
    """
    runs = _of_one_model(folders)
    files = _hub_results(runs)
    now = _standing(repository, "model", [CARD, *files])
    old = {path: hub.read_file(repository, "model", path, now.commit) for path in (CARD, *files) if path in now.sums}
    card = with_section(old.get(CARD, b""), section(runs, hub.address(records, "dataset") if records else None))
    return _change(repository, "model", "Scores of Darumeru", now, {CARD: card, **files}, old)


def _hub_results(runs: Sequence[Run]) -> dict[str, bytes]:
    """Return the hub's files of runs that have something for its table; of others the card tells alone."""
    texts = []
    for run in runs:
        try:
            texts.append(as_text(run.path, "hf-eval-results").encode())
        except NothingToTellError as error:
            log.warning("The card gets the scores, the hub's table does not. %s", error)
    # Names that stay, so that another evaluation takes the place of this one.
    return {f".eval_results/darumeru{f'-{n}' if n > 1 else ''}.yaml": text for n, text in enumerate(texts, start=1)}


def change_card(folders: Sequence[Path], card: Path) -> tuple[bytes, bytes]:
    """Return a card file's content now, and with the section of runs; nothing is written.

    Raises:
        UserError: a run that cannot be published, a card that is missing or cannot be changed.
        DarumeruError: a record was changed.
    """
    runs = _of_one_model(folders)
    if not card.is_file():
        raise UserError(f"There is no card '{card}'. Name a README.md; an empty one will do.")
    old = card.read_bytes()
    return old, with_section(old, section(runs))


def plan_records(folders: Sequence[Path], repository: str, samples: bool = True) -> Change:
    """Return what a data set's repository is to get: the records, each in a folder of its name.

    The paths of this machine are left out of the header, and the manifest is made anew.

    Args:
        folders: of finished runs.
        repository: `owner/name`.
        samples: with prompts and answers; without them a record cannot be scored anew and has no manifest.

    Raises:
        UserError: a run that cannot be published, no such repository.
        DarumeruError: the hub cannot be reached; a record was changed.
    """
    files: dict[str, bytes] = {}
    for run in _runs(folders):
        files |= {f"{run.path.name}/{name}": content for name, content in record_files(run, samples).items()}
    return _change(repository, "dataset", "Records of Darumeru", _standing(repository, "dataset", files), files)


def record_files(run: Run, samples: bool = True) -> dict[str, bytes]:
    """Return the files of a record as they are published, by path."""
    header = read_json(run.path / "header.json")
    header["where"] = {k: v for k, v in header.get("where", {}).items() if k not in ("model_path", "data")}
    names = ["scores.json", *(f"samples/{task}.jsonl" for task in run.tasks if samples)]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        write_json(copy / "header.json", header)
        for name in names:
            (copy / name).parent.mkdir(exist_ok=True)
            (copy / name).write_bytes((run.path / name).read_bytes())
        if samples:
            seal(copy, ["header.json", *names])
        return {p.relative_to(copy).as_posix(): p.read_bytes() for p in sorted(copy.rglob("*")) if p.is_file()}


def _runs(folders: Sequence[Path]) -> list[Run]:
    runs = [load_run(folder) for folder in folders]
    for run in runs:
        if not run.complete:
            raise UserError(f"Run '{run.path}' is not finished: start the same 'darumeru run' again, then publish it.")
        run.verify()
    if len({run.path.resolve().name for run in runs}) < len(runs):
        raise UserError("Two of the runs have one name. Give each run once.")
    return runs


def _of_one_model(folders: Sequence[Path]) -> list[Run]:
    """Return the runs for a card, which is one model's: of the same weights, or of the same name where these are not known."""
    runs = _runs(folders)

    def told(run: Run) -> tuple[str, str | None]:
        model = run.header.model
        return model.weights_sha256 or model.name, model.adapter_sha256

    if other := [run for run in runs if told(run) != told(runs[0])]:
        one, two = (f"'{run.path}' is of '{run.header.model.name}'" for run in (runs[0], other[0]))
        raise UserError(
            f"A card is of one model, and {one}, {two} of other weights, adapter or name: publish each model by itself."
        )
    return runs


def _standing(repository: str, kind: hub.Kind, paths: Iterable[str]) -> hub.Standing:
    """Return what a repository has of some files, if its name is one."""
    if not hub.is_hub_id(repository) or repository.count("/") != 1:
        raise UserError(f"'{repository}' is no repository of the hub. Write owner/name.")
    return hub.standing(repository, kind, paths)


def _change(
    repository: str,
    kind: hub.Kind,
    title: str,
    now: hub.Standing,
    files: Mapping[str, bytes],
    old: Mapping[str, bytes] = {},
) -> Change:
    """Return the change without the files that are there so already."""
    other = {path: content for path, content in files.items() if not now.has(path, content)}
    return Change(repository, kind, title, now.commit, other, dict(old), frozenset(other) - now.sums.keys())
