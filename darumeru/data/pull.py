"""Offline bundles written from the hub, resumed where an earlier pull was interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.data.bundle import FORMAT, LOCK_NAME, HubBundle, local_name, read_entries, read_lock, read_rows
from darumeru.errors import DarumeruError, UserError
from darumeru.files import check_output, fingerprint, read_json, slug, write_json, write_jsonl

PARTIAL_NAME = "bundle.partial.json"
"""The manifest of an unfinished pull, in the format of `bundle.json`, and `begun`: `<dataset>/<split>` of what it writes."""


@dataclass(frozen=True)
class Source:
    """A data set on the hub, and the splits of it that are wanted."""

    path: str
    """The repository."""
    name: str | None
    """The configuration, if it has several."""
    splits: tuple[str, ...]


def write_bundle(suite: str, sources: Iterable[Source], output: Path, lock: Path | None = None) -> Path:
    """Write an offline bundle from the hub.

    `<dataset>/<split>.jsonl` for each split, then, last, `bundle.json`: `{"format": 1, "suite", "revisions":
    {repository: commit}, "datasets": {dataset: {"path", "name", "splits": {split: source}}}}`. A pull that was
    interrupted resumes; what it has already written is not fetched again, unless the hub's revision has changed. A
    second suite can be pulled into the same folder.

    Args:
        suite: the name of what is pulled, for the manifest.
        sources: the data sets; the splits of equal ones are joined.
        output: the folder.
        lock: a `bundle.json` whose revisions are fetched.

    Returns:
        The path of `bundle.json`.

    Raises:
        UserError: the folder holds other data, or the hub has no such data set.
        DarumeruError: the hub cannot be reached.
    """
    check_output(output)
    hub = HubBundle(read_lock(lock) if lock else {})
    wanted = _wanted(sources)
    before = _manifest(output)
    begun = set(before.get("begun", ()))
    # All revisions first: a hub that cannot be reached is known before anything is written.
    revisions = {path: hub.revision(path) for path in dict.fromkeys(path for path, _, _ in wanted.values())}
    _same_revisions(before, wanted, revisions, output)
    suites = sorted({*filter(None, str(before.get("suite", "")).split(", ")), suite})
    datasets: dict[str, Any] = dict(before.get("datasets", {}))
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "suite": ", ".join(suites),
        "revisions": {**before.get("revisions", {}), **revisions},
        "datasets": datasets,
    }
    todo = []
    for dataset, (path, name, splits) in wanted.items():
        old = datasets.get(dataset, {}).get("splits", {})
        for split in splits:
            file = output / dataset / f"{split}.jsonl"
            if split not in old and file.exists() and f"{dataset}/{split}" not in begun:
                raise UserError(f"'{file}' is there already and no pull has written it; choose another --output.")
            if not _complete(file, old.get(split), revisions[path]):
                todo.append((dataset, path, name, split, file))
        datasets[dataset] = {"path": path, "name": name, "splits": dict(old)}
    # A pull may be killed when a file is there and the manifest does not list it yet: it is known for ours all the same.
    begun |= {f"{dataset}/{split}" for dataset, _, _, split, file in todo if not file.exists()}
    partial = manifest | {"begun": sorted(begun)}
    if todo:
        write_json(output / PARTIAL_NAME, partial)
        (output / LOCK_NAME).unlink(missing_ok=True)  # it means that the bundle is complete
    for dataset, path, name, split, file in todo:
        loaded = hub.load(path, name, split)
        write_jsonl(file, loaded.rows)
        datasets[dataset]["splits"][split] = loaded.source
        manifest["revisions"] |= hub.lock  # the revision of a conversion is known only now
        write_json(output / PARTIAL_NAME, partial)
    write_json(output / LOCK_NAME, manifest)
    (output / PARTIAL_NAME).unlink(missing_ok=True)
    return output / LOCK_NAME


_Wanted = dict[str, tuple[str, str | None, list[str]]]
"""Data set → hub path, configuration, splits."""


def _wanted(sources: Iterable[Source]) -> _Wanted:
    wanted: _Wanted = {}
    for source in sources:
        dataset = local_name(source.path, source.name)
        for part in (dataset, *source.splits):
            if slug(part) != part:
                raise UserError(f"Data set '{source.path}': '{part}' cannot be the name of a file of a bundle.")
        known = wanted.setdefault(dataset, (source.path, source.name, []))
        if known[:2] != (source.path, source.name):
            raise UserError(f"Data sets '{known[0]}' and '{source.path}' would both be '{dataset}' in a bundle.")
        known[2].extend(split for split in source.splits if split not in known[2])
    return wanted


def _manifest(output: Path) -> dict[str, Any]:
    """Return what earlier pulls wrote into the folder, finished or not; empty if nothing."""
    for file in (output / PARTIAL_NAME, output / LOCK_NAME):
        if file.is_file():
            revisions, entries = read_lock(file), read_entries(file)
            stated = {key: value for key, value in read_json(file).items() if key in ("suite", "begun")}
            return {**stated, "revisions": revisions, "datasets": entries}
    return {}


def _same_revisions(before: Mapping[str, Any], wanted: _Wanted, revisions: Mapping[str, str], output: Path) -> None:
    """Require that a bundle pins one revision of a repository, also where two suites share it.

    Raises:
        UserError: data sets that stay as they are have another revision than those that are fetched.
    """
    for dataset, entry in before.get("datasets", {}).items():
        old = before["revisions"].get(entry.get("path"))
        stays = dataset not in wanted and entry["splits"]
        if stays and entry.get("path") in revisions and revisions[entry["path"]] != old:
            raise UserError(
                f"'{output}' holds data set '{dataset}' of '{entry['path']}' at revision {old}, and the hub is now at "
                f"{revisions[entry['path']]}. Fetch the same revision with --lock, or choose another --output."
            )


def _complete(file: Path, source: Any, revision: str) -> bool:
    """Return whether a split is on disk as an earlier pull of the same revision wrote it."""
    if source is None or source.get("revision") != revision or not file.is_file():
        return False
    try:
        return fingerprint(read_rows(file)) == str(source.get("sha256"))
    except DarumeruError:
        return False
