"""Bundles: where the rows of the data sets come from - the hub, the built-in mini bundle, or a folder.

A bundle folder holds `<dataset>/<split>.jsonl` (or `.jsonl.gz`, `.parquet`) for each data set, `<dataset>` being the
hub's configuration name or, where there is none, the last part of the repository's name; and, if `darumeru data pull`
wrote it, `bundle.json`, which pins the hub's revisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from darumeru import hub
from darumeru.errors import DarumeruError, UserError, unknown
from darumeru.files import fingerprint, read_json, read_jsonl, slug

Row = dict[str, Any]

MINI = Path(__file__).parent / "mini"
FORMAT = 1
"""The format of `bundle.json`."""
LOCK_NAME = "bundle.json"
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_WITHOUT_HUB = (
    "Without the hub use --data mini, or --data DIR with a bundle made by 'darumeru data pull' "
    "where the hub can be reached."
)


@dataclass(frozen=True)
class Split:
    """The rows of one split of one data set, and where they came from."""

    rows: list[Row]
    source: dict[str, Any]
    """As the record of a run states it: `source`, `rows`, `sha256` of the rows, and `revision` for the hub."""


class Bundle(Protocol):
    """A place that rows come from."""

    name: str

    def load(self, path: str, name: str | None, split: str) -> Split:
        """Return the rows of `split` of the data set with this hub path and configuration name."""
        ...


def local_name(path: str, name: str | None) -> str:
    """Return the folder of a data set inside a bundle: its configuration, or the last part of its path."""
    return name or path.rsplit("/", 1)[-1]


def _split(rows: list[Row], source: str, **more: Any) -> Split:
    return Split(rows, {"source": source, "rows": len(rows), "sha256": fingerprint(rows), **more})


def read_rows(file: Path) -> list[Row]:
    """Read a `.jsonl`, `.jsonl.gz` or `.parquet` file of rows.

    Raises:
        UserError: it cannot be read, or a row is no object.
    """
    if file.suffix == ".parquet":
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"'{file}' cannot be read as Parquet ({error}).") from None
        return list(table.to_pylist())
    rows = []
    for number, row in read_jsonl(file):
        if not isinstance(row, dict):
            raise UserError(f"'{file}', line {number}: a row must be a JSON object, this is a {type(row).__name__}.")
        rows.append(row)
    return rows


@dataclass
class FolderBundle:
    """A bundle in a folder of local files."""

    root: Path
    name: str
    _cache: dict[tuple[str, str], Split] = field(default_factory=dict, repr=False)

    def datasets(self) -> list[str]:
        """Return the names of the data sets that the folder holds."""
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and any(_split_files(p)))

    def file(self, dataset: str, split: str) -> Path:
        """Return the file of a split.

        Raises:
            UserError: the bundle has no such data set or split.
        """
        folder = self.root / dataset
        if not folder.is_dir():
            raise UserError(
                f"Bundle '{self.name}' has no data set '{dataset}'; it has: {', '.join(self.datasets()) or 'none'}. "
                "Leave the task out with --tasks, or add the data set (see 'darumeru data import' and 'data pull')."
            )
        for suffix in _SUFFIXES:
            if (file := folder / f"{split}{suffix}").is_file():
                return file
        have = sorted({p.name.split(".")[0] for p in _split_files(folder)})
        raise UserError(
            f"Data set '{dataset}' of bundle '{self.name}' has no split '{split}'; it has: {', '.join(have) or 'none'}."
        )

    def load(self, path: str, name: str | None, split: str) -> Split:
        """See `Bundle.load`."""
        dataset = local_name(path, name)
        if (dataset, split) not in self._cache:
            self._cache[dataset, split] = _split(read_rows(self.file(dataset, split)), f"bundle:{self.name}")
        return self._cache[dataset, split]


def _split_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name.endswith(_SUFFIXES))


@dataclass
class HubBundle:
    """The Hugging Face hub; every revision is resolved once and recorded, or pinned by a lock file."""

    lock: dict[str, str] = field(default_factory=dict)
    """Repository → revision (a commit hash)."""
    name: str = "hub"
    _cache: dict[tuple[str, str | None, str], Split] = field(default_factory=dict, repr=False)
    _refused: dict[str, DarumeruError] = field(default_factory=dict, repr=False)

    def revision(self, path: str, branch: str | None = None) -> str:
        """Return the commit that `path` (of a branch other than the main one, if given) is read at.

        Raises:
            DarumeruError: the hub has no such data set, or cannot be asked.
        """
        key = f"{path}@{branch}" if branch else path
        if key in self._refused:  # another task has asked already, and waited
            raise self._refused[key]
        if key not in self.lock:
            try:
                self.lock[key] = hub.dataset_revision(path, branch, advice=_WITHOUT_HUB)
            except DarumeruError as error:
                self._refused[key] = error
                raise
        return self.lock[key]

    def load(self, path: str, name: str | None, split: str) -> Split:
        """See `Bundle.load`."""
        key = (path, name, split)
        if key not in self._cache:
            self._cache[key] = self._fetch(path, name, split)
        return self._cache[key]

    def _fetch(self, path: str, name: str | None, split: str) -> Split:
        revision = commit = self.revision(path)
        more: dict[str, Any] = {"repository": path, "revision": revision}
        # Which of the two is read is asked first, not found out by trying: that would hang on what a cache happens to hold.
        if converted := hub.has_script(path, revision, advice=_WITHOUT_HUB):
            commit = self.revision(path, hub.CONVERSION)
            more |= {"conversion": hub.CONVERSION, "conversion_revision": commit}
        rows = hub.dataset_rows(path, name, split, commit, converted=converted, advice=_WITHOUT_HUB)
        return _split(rows, f"hub:{path}" + (f"/{name}" if name else ""), **more)


def read_lock(path: Path) -> dict[str, str]:
    """Return repository → revision from a `bundle.json`, or from the folder of a bundle or of a run on the hub's data.

    Raises:
        UserError: it states no revisions.
    """
    if path.is_dir() and (path / "header.json").is_file():
        return _revisions_of_run(path)
    file = path / LOCK_NAME if path.is_dir() else path
    content = read_json(file)
    revisions = content.get("revisions") if isinstance(content, dict) else None
    if not isinstance(revisions, dict) or not all(isinstance(v, str) for v in revisions.values()):
        raise UserError(f"'{file}' is no lock file: it needs an object 'revisions' of repository → commit hash.")
    return {str(k): str(v) for k, v in revisions.items()}


def _revisions_of_run(folder: Path) -> dict[str, str]:
    """Return the revisions that a run read its data at."""
    header = read_json(folder / "header.json")
    revisions: dict[str, str] = {}
    try:
        sources = [source for facts in header["tasks"].values() for source in (facts.get("data") or {}).values()]
        for source in sources:
            if repository := source.get("repository"):
                revisions[repository] = source["revision"]
                if conversion := source.get("conversion"):
                    revisions[f"{repository}@{conversion}"] = source["conversion_revision"]
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"'{folder / 'header.json'}' is not the header of a run.") from None
    if not revisions:
        raise UserError(f"Run '{folder}' states no revisions of the hub: it did not read its data there.")
    return revisions


def read_entries(file: Path) -> dict[str, Any]:
    """Return the data sets that a `bundle.json` lists: data set → `path`, `name`, `splits`.

    Raises:
        UserError: `darumeru data pull` has not written it, or another version has.
    """
    content = read_json(file)
    entries = content.get("datasets") if isinstance(content, dict) else None
    well_formed = isinstance(entries, dict) and all(
        slug(dataset) == dataset
        and isinstance(entry, dict)
        and isinstance(entry.get("splits"), dict)
        and all(slug(split) == split and isinstance(source, dict) for split, source in entry["splits"].items())
        for dataset, entry in entries.items()
    )
    if not isinstance(entries, dict) or not well_formed:
        raise UserError(f"'{file}' was not written by 'darumeru data pull'; choose another --output.")
    if content.get("format") != FORMAT:
        raise UserError(f"'{file}' has format {content.get('format')}; this version of darumeru reads format {FORMAT}.")
    return entries


def open_bundle(data: str | Path, lock: Path | None = None) -> FolderBundle | HubBundle:
    """Return the bundle that `--data` names: `hub`, `mini`, or a folder.

    Args:
        data: `hub`, `mini` or the path of a bundle folder.
        lock: what pins the hub's revisions (`read_lock`); only with `hub`.

    Raises:
        UserError: no such bundle.
    """
    if str(data) == "hub":
        return HubBundle(read_lock(lock) if lock else {})
    if lock is not None:
        raise UserError(f"A lock file ('{lock}') pins the hub's revisions and needs --data hub, not --data {data}.")
    if str(data) == "mini":
        return FolderBundle(MINI, "mini")
    root = Path(data)
    if not root.is_dir():
        raise unknown("bundle", str(data), ["hub", "mini", "DIR (an existing folder)"])
    bundle = FolderBundle(root, root.resolve().name)
    if not bundle.datasets():
        raise UserError(
            f"'{root}' is no bundle: it has no <dataset>/<split>.jsonl. 'darumeru data pull' and 'darumeru data import' make one."
        )
    return bundle
