"""Bundles: where the rows of the data sets come from - the hub, the built-in mini bundle, or a folder.

A bundle folder holds `<dataset>/<split>.jsonl` (or `.jsonl.gz`, `.parquet`) for each data set, `<dataset>` being the
hub's configuration name or, where there is none, the last part of the repository's name; and, if `darumeru data pull`
wrote it, `bundle.json`, which pins the hub's revisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from darumeru.errors import DarumeruError, UserError, unknown
from darumeru.files import fingerprint, read_json, read_jsonl

Row = dict[str, Any]

MINI = Path(__file__).parent / "mini"
LOCK_NAME = "bundle.json"
CONVERSION = "refs/convert/parquet"
"""The hub's branch with the automatic Parquet conversion of a data set."""
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class Split:
    """The rows of one split of one data set, and where they came from."""

    rows: list[Row]
    source: dict[str, Any]
    """What the record of a run states: `source`, `rows`, `sha256` of the rows, and `revision` for the hub."""


class Bundle(Protocol):
    """Where rows come from."""

    name: str

    def load(self, path: str, name: str | None, split: str) -> Split:
        """The rows of `split` of the data set with this hub path and configuration name."""
        ...


def local_name(path: str, name: str | None) -> str:
    """The folder of a data set inside a bundle: its configuration, or the last part of its path."""
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
        """The data sets that the folder holds."""
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and any(_split_files(p)))

    def file(self, dataset: str, split: str) -> Path:
        """The file of a split.

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

    def revision(self, path: str, branch: str | None = None) -> str:
        """The commit that `path` (of a branch other than the main one, if given) is read at.

        Raises:
            DarumeruError: the hub cannot be asked.
        """
        key = f"{path}@{branch}" if branch else path
        if key not in self.lock:
            import huggingface_hub

            try:
                sha = huggingface_hub.HfApi().dataset_info(path, revision=branch).sha
            except Exception as error:  # the client's and its transport's errors have no common ancestor
                raise _unreachable(path, error) from None
            if sha is None:
                raise DarumeruError(f"The hub gave no revision for data set '{path}'.")
            self.lock[key] = sha
        return self.lock[key]

    def load(self, path: str, name: str | None, split: str) -> Split:
        """See `Bundle.load`."""
        key = (path, name, split)
        if key not in self._cache:
            self._cache[key] = self._fetch(path, name, split)
        return self._cache[key]

    def _fetch(self, path: str, name: str | None, split: str) -> Split:
        import datasets

        revision = self.revision(path)
        more: dict[str, Any] = {"revision": revision}
        try:
            try:
                data = datasets.load_dataset(path, name, split=split, revision=revision)
            except RuntimeError as error:
                if "script" not in str(error).lower():
                    raise
                # datasets >= 4 runs no loading scripts; the hub keeps a Parquet conversion of such data sets.
                converted = self.revision(path, CONVERSION)
                more |= {"conversion": CONVERSION, "conversion_revision": converted}
                data = datasets.load_dataset(path, name, split=split, revision=converted)
        except DarumeruError:
            raise
        except Exception as error:
            raise _unreachable(path, error) from None
        return _split([dict(row) for row in data], f"hub:{path}" + (f"/{name}" if name else ""), **more)


def _unreachable(path: str, error: Exception) -> DarumeruError:
    return DarumeruError(
        f"Data set '{path}' could not be loaded from the hub ({type(error).__name__}: {str(error).partition(chr(10))[0]}). "
        "Without the hub use --data mini, or --data DIR with a bundle made by 'darumeru data pull' where the hub can be reached."
    )


def read_lock(file: Path) -> dict[str, str]:
    """Repository → revision from a `bundle.json`.

    Raises:
        UserError: the file is not such a lock.
    """
    content = read_json(file)
    revisions = content.get("revisions") if isinstance(content, dict) else None
    if not isinstance(revisions, dict) or not all(isinstance(v, str) for v in revisions.values()):
        raise UserError(f"'{file}' is no lock file: it needs an object 'revisions' of repository → commit hash.")
    return {str(k): str(v) for k, v in revisions.items()}


def open_bundle(data: str | Path, lock: Path | None = None) -> FolderBundle | HubBundle:
    """The bundle that `--data` names: `hub`, `mini`, or a folder.

    Args:
        data: `hub`, `mini` or the path of a bundle folder.
        lock: a `bundle.json` that pins the hub's revisions; only with `hub`.

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
