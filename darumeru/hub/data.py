"""Data sets on the hub, read from its cache at one commit.

Never through what the client `datasets` may have kept of another: its own fallback, the newest copy that it finds, would give
other rows than the record states.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from darumeru.errors import DarumeruError, UserError, unknown
from darumeru.hub.refusals import chain_of, no_answer, patiently, refusal

_log = logging.getLogger(__name__)

CONVERSION = "refs/convert/parquet"
"""The hub's branch with the automatic Parquet conversion of a data set."""
_CARD = "README.md"
_BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
"""Suffix of a data file → builder of `datasets`."""
_READING = ("field", "encoding", "sep", "delimiter", "features")
"""What a card may say of how files are read; anything else in it never reaches a function here."""


def dataset_revision(repository: str, branch: str | None = None, *, advice: str = "") -> str:
    """Return the commit that a data set's branch (the main one if None) is at.

    Where the hub cannot be reached it is the commit that the branch was at when it was last looked up here.

    Args:
        repository: the hub id.
        branch: a branch or tag.
        advice: a sentence that ends the message of an error: what to do without the hub.

    Raises:
        UserError: there is no such repository or branch, or it is gated.
        DarumeruError: the hub cannot be reached, and the cache does not know the branch.
    """
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    api = huggingface_hub.HfApi()
    try:
        sha = patiently(lambda: api.dataset_info(repository, revision=branch, timeout=HF_HUB_ETAG_TIMEOUT).sha)
        if sha is None:
            raise DarumeruError(f"The hub gave no revision for data set '{repository}'.")
        _dataset_folder(repository, branch, _marks(repository))  # so that the cache knows the branch
    except Exception as error:
        if isinstance(error, DarumeruError):
            raise
        if no_answer(chain_of(error)) and (cached := _cached_revision(repository, branch)):
            _log.warning("The hub cannot be reached: data set '%s' is read at %s, as cached.", repository, cached)
            return cached
        raise refusal(_not_loaded(repository), error, branch, advice) from error
    return sha


def has_script(repository: str, revision: str, *, advice: str = "") -> bool:
    """Return whether a data set needs a Python script of its own, which is never run: `CONVERSION` stands in for it.

    Args:
        repository: the hub id.
        revision: a commit.
        advice: as for `dataset_revision`.

    Raises:
        UserError: there is no such repository or revision, or it is gated.
        DarumeruError: the hub cannot be reached, and the cache lacks it.
    """
    try:
        return (_dataset_folder(repository, revision, _marks(repository)) / _script(repository)).is_file()
    except Exception as error:
        raise refusal(_not_loaded(repository), error, revision, advice) from error


def dataset_rows(
    repository: str,
    configuration: str | None,
    split: str,
    revision: str,
    *,
    converted: bool = False,
    advice: str = "",
) -> list[dict[str, Any]]:
    """Return all rows of a split, as JSON could hold them: times are texts, and a field that a row lacks is not there.

    Args:
        repository: the hub id.
        configuration: the data set's configuration, if it has several.
        split: the split's name.
        revision: the commit to read.
        converted: whether the commit is one of `CONVERSION`.
        advice: as for `dataset_revision`.

    Raises:
        UserError: there is no such repository, revision, configuration or split, or it is gated.
        DarumeruError: it cannot be loaded, or the hub cannot be reached.
    """
    import datasets

    what = _not_loaded(repository, configuration, split)
    try:
        patterns, settings = [f"{configuration or '*'}/{split}/*.parquet"], dict[str, Any]()
        if not converted:
            card = _dataset_folder(repository, revision, _marks(repository)) / _CARD
            patterns, settings = _files_of_card(card, configuration, split)
        folder = _dataset_folder(repository, revision, patterns or [f"*{suffix}*" for suffix in _BUILDERS])
        if patterns:
            files = _files(folder, patterns)
            if len(held := {file.relative_to(folder).parts[0] for file in files}) > 1 and converted:
                raise UserError(f"it has several configurations, one must be named: {', '.join(sorted(held))}")
            settings |= {"path": _builder(files), "data_files": {split: list(map(str, files))}}
        else:  # which split a file belongs to is then a matter of its name, which `datasets` knows to read
            settings |= {"path": str(folder)}
        return [_plain(row) for row in datasets.load_dataset(split=split, **settings)]
    except UserError as error:
        raise UserError(f"{what} ({error}). {advice}".strip()) from None
    except Exception as error:
        raise refusal(what, error, revision, advice) from error


def stream_rows(
    repository: str, configuration: str | None = None, split: str = "train", *, advice: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split of the main branch; nothing but the current one is kept.

    Raises:
        UserError: there is no such repository, or it is gated.
        DarumeruError: it cannot be loaded, or the hub cannot be reached.
    """
    import datasets

    revision = dataset_revision(repository, advice=advice)  # whose refusals say more than those of `datasets`
    try:
        yield from datasets.load_dataset(repository, configuration, split=split, revision=revision, streaming=True)
    except Exception as error:
        raise refusal(_not_loaded(repository), error, revision, advice) from error


def _script(repository: str) -> str:
    return f"{repository.rsplit('/', 1)[-1]}.py"


def _marks(repository: str) -> list[str]:
    """Return the files that say how a data set is read, and one that all have; the script is looked for, not run."""
    return [_CARD, _script(repository), ".gitattributes"]


def _dataset_folder(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of the hub's cache with these files of a data set, fetched if need be; its name is the commit."""
    import huggingface_hub

    return Path(
        patiently(
            lambda: huggingface_hub.snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )
    )


def _cached_revision(repository: str, branch: str | None) -> str | None:
    """Return the commit that the cache last saw a branch at."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type="dataset", revision=branch, allow_patterns=[_CARD], local_files_only=True
            )
        ).name
    except LocalEntryNotFoundError:
        return None


def _files_of_card(card: Path, configuration: str | None, split: str) -> tuple[list[str], dict[str, Any]]:
    """Return the file patterns of a split as the data set's card states them, none if it states none, and the builder's settings.

    Raises:
        UserError: the card knows no such configuration or split.
    """
    import huggingface_hub
    from datasets.data_files import sanitize_patterns
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs

    content = huggingface_hub.DatasetCard.load(card).data if card.is_file() else huggingface_hub.DatasetCardData()
    configurations = MetadataConfigs.from_dataset_card_data(content)
    if not configurations:
        if configuration is not None:
            raise UserError(f"it has no configuration '{configuration}': its card names none")
        return [], {}
    name = configuration or configurations.get_default_config_name()
    if name not in configurations:
        raise UserError(_unended(unknown("configuration", str(name), configurations)))
    settings: Mapping[str, Any] = configurations[name]
    if not settings.get("data_files"):
        raise UserError(f"its card names no files of the configuration '{name}'")
    splits = sanitize_patterns(settings["data_files"])
    if split not in splits:
        raise UserError(_unended(unknown("split", split, splits)))
    patterns = list(map(str, splits[split]))
    for pattern in patterns:
        if (path := PurePosixPath(pattern)).is_absolute() or ".." in path.parts:
            raise UserError(f"its card names the file '{pattern}', which is not inside it")
    infos = DatasetInfosDict.from_dataset_card_data(content)
    features = {"features": infos[name].features} if name in infos and infos[name].features else {}
    return patterns, features | {key: settings[key] for key in _READING if key in settings}


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    if not files:
        raise UserError(f"it has no files '{', '.join(patterns)}' at revision {folder.name}")
    return files


def _builder(files: Sequence[Path]) -> str:
    suffixes = {next((s for s in reversed(file.suffixes) if s in _BUILDERS), file.suffix) for file in files}
    if len(suffixes) > 1 or not suffixes <= set(_BUILDERS):
        raise UserError(f"its files are {', '.join(sorted(suffixes))}; read are: {', '.join(_BUILDERS)}")
    return _BUILDERS[suffixes.pop()]


def _plain(value: Any) -> Any:
    """Return a value of a row as JSON holds it; Arrow gives every row all fields, None where it has none."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, datetime | date) else value


def _not_loaded(repository: str, configuration: str | None = None, split: str | None = None) -> str:
    part = ", ".join(filter(None, (configuration, split)))
    return f"Data set '{repository}'{f' ({part})' if part else ''} could not be loaded from the hub"


def _unended(error: Exception) -> str:
    return str(error).rstrip(".")
