"""The Hugging Face hub: everything that is fetched from it is asked for here, and whatever fails is said in one sentence.

A repository that does not exist, is gated or lacks the revision is a `UserError`, for asking again would not help; a hub
that cannot be reached is a `DarumeruError`. Where the hub is busy (429) it is asked again after the delay that it names.

Data sets are read from the hub's cache at one commit, never through what the client `datasets` may have kept of another: its
own fallback, the newest copy that it finds, would give other rows than the record states.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from errno import EDQUOT, EFBIG, ENOSPC
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from darumeru.errors import DarumeruError, UserError, unknown

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

CONVERSION = "refs/convert/parquet"
"""The hub's branch with the automatic Parquet conversion of a data set."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEXT_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_CARD = "README.md"
_LOGIN = "log in with 'hf auth login' or set HF_TOKEN"
_TRIES = 5
_LONGEST_WAIT = 600
"""Seconds; a hub that asks for more is not waited for."""
_BUILDERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
"""Suffix of a data file → builder of `datasets`."""
_READING = ("field", "encoding", "sep", "delimiter", "features")
"""What a card may say of how files are read; anything else in it never reaches a function here."""


def is_hub_id(name: str) -> bool:
    """Return whether `name` has the form of a hub id, `owner/name` or `name`; paths such as `./x` and `a/b/c` have not.

    >>> is_hub_id("Qwen/Qwen3-4B"), is_hub_id("gpt2"), is_hub_id("../Qwen3"), is_hub_id("models/qwen/4b")
    (True, True, False, False)
    """
    return _ID.fullmatch(name) is not None and ".." not in name


def model_folder(repository: str, *, revision: str | None = None, weights: bool = True, code: bool = False) -> Path:
    """Return the folder of the hub's cache that holds a model, fetched if need be; its name is the commit.

    No pickles are fetched: configuration, tokenizer and safetensors only, and Python code only where it is trusted.

    Args:
        repository: the hub id.
        revision: branch, tag or commit; the main branch if None.
        weights: fetch the safetensors files too.
        code: fetch the Python code that the model brings too, for `--trust-remote-code`.

    Raises:
        UserError: there is no such repository or revision, or it is gated.
        DarumeruError: the hub cannot be reached, and the cache lacks the model.
    """
    import huggingface_hub

    patterns = [*_TEXT_FILES, *(["*.safetensors"] if weights else []), *(["*.py"] if code else [])]
    try:
        return Path(huggingface_hub.snapshot_download(repo_id=repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the client's and its transport's errors have no common ancestor
        what = f"Model '{repository}' is no folder here, and the hub did not give it"
        raise _refusal(what, error, revision, "Check the name, or give the path of a model folder.") from error


def unreachable(seconds: float = 5.0) -> str | None:
    """Return why the hub cannot be asked from here, in a few words; None if it answers."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked, HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception as error:  # as in `model_folder`
        return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {_first_line(error)})"
    return None


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
        sha = _patiently(lambda: api.dataset_info(repository, revision=branch, timeout=HF_HUB_ETAG_TIMEOUT).sha)
        if sha is None:
            raise DarumeruError(f"The hub gave no revision for data set '{repository}'.")
        _dataset_folder(repository, branch, _marks(repository))  # so that the cache knows the branch
    except Exception as error:
        if isinstance(error, DarumeruError):
            raise
        if _unreachable(_chain(error)) and (cached := _cached_revision(repository, branch)):
            _log.warning("The hub cannot be reached: data set '%s' is read at %s, as cached.", repository, cached)
            return cached
        raise _refusal(_not_loaded(repository), error, branch, advice) from error
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
        raise _refusal(_not_loaded(repository), error, revision, advice) from error


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
        patterns, settings = [f"{configuration or '*'}/{split}/*.parquet"], {}
        if not converted:
            card = _dataset_folder(repository, revision, _marks(repository)) / _CARD
            patterns, settings = _files_of_card(card, configuration, split)
        folder = _dataset_folder(repository, revision, patterns)
        files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
        if not files:
            raise UserError(f"it has no files '{', '.join(patterns)}' at revision {revision}")
        if len(held := {file.relative_to(folder).parts[0] for file in files}) > 1 and converted:
            raise UserError(f"it has several configurations, of which one must be named: {', '.join(sorted(held))}")
        builder = _builder(files)
        loaded = datasets.load_dataset(builder, data_files={split: list(map(str, files))}, split=split, **settings)
        return [_plain(row) for row in loaded]
    except UserError as error:
        raise UserError(f"{what} ({error}). {advice}".strip()) from None
    except Exception as error:
        raise _refusal(what, error, revision, advice) from error


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
        raise _refusal(_not_loaded(repository), error, revision, advice) from error


def _script(repository: str) -> str:
    return f"{repository.rsplit('/', 1)[-1]}.py"


def _marks(repository: str) -> list[str]:
    """Return the files that say how a data set is read, and one that all have; the script is looked for, not run."""
    return [_CARD, _script(repository), ".gitattributes"]


def _dataset_folder(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of the hub's cache with these files of a data set, fetched if need be; its name is the commit."""
    import huggingface_hub

    return Path(
        _patiently(
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
    """Return the file patterns of a split as the data set's card states them, and the settings of the builder.

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
        return [f"{split}.*", f"{split}-*", f"data/{split}.*", f"data/{split}-*", f"{split}/*"], {}
    name = configuration or configurations.get_default_config_name()
    if name not in configurations:
        raise UserError(_unended(unknown("configuration", str(name), configurations)))
    settings: Mapping[str, Any] = configurations[name]
    splits = sanitize_patterns(settings.get("data_files") or {})
    if split not in splits:
        raise UserError(_unended(unknown("split", split, splits)))
    patterns = list(map(str, splits[split]))
    for pattern in patterns:
        if (path := PurePosixPath(pattern)).is_absolute() or ".." in path.parts:
            raise UserError(f"its card names the file '{pattern}', which is not inside it")
    infos = DatasetInfosDict.from_dataset_card_data(content)
    features = {"features": infos[name].features} if name in infos and infos[name].features else {}
    return patterns, features | {key: settings[key] for key in _READING if key in settings}


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


def _patiently(call: Callable[[], _T]) -> _T:
    """Return what a call to the hub returns; a hub that is busy is asked again after the delay that it names."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return call()
        except Exception as error:
            delay = _delay(_chain(error))
            if delay is None or delay > _LONGEST_WAIT or not tries_left:
                raise
            _log.warning("The hub is busy and asks for %d s of patience.", delay)
            time.sleep(delay)
    raise AssertionError  # the last try returns or raises


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from: `datasets` raises errors of its own from the client's."""
    chain = [error]
    while (origin := chain[-1].__cause__ or chain[-1].__context__) is not None and origin not in chain:
        chain.append(origin)
    return chain


def _responses(chain: Sequence[BaseException]) -> list[Any]:
    """Return the hub's answers that errors tell of."""
    from huggingface_hub.errors import HfHubHTTPError

    return [link.response for link in chain if isinstance(link, HfHubHTTPError) and link.response is not None]


def _delay(chain: Sequence[BaseException]) -> int | None:
    """Return the seconds after which a busy hub wants to be asked again; None if it is not that."""
    for response in _responses(chain):
        if response.status_code == 429:
            given = response.headers.get("retry-after", "").strip()
            return int(given) if given.isdigit() else 1
    return None


def _unreachable(chain: Sequence[BaseException]) -> bool:
    """Return whether no answer of the hub came at all, or one that it is out of order."""
    # The client's transport is httpx or httpx2, by its version; both call the ancestor of their errors so.
    return any(
        isinstance(link, ConnectionError | TimeoutError) or "TransportError" in {c.__name__ for c in type(link).__mro__}
        for link in chain
    ) or any(response.status_code >= 500 for response in _responses(chain))


def _not_loaded(repository: str, configuration: str | None = None, split: str | None = None) -> str:
    part = ", ".join(filter(None, (configuration, split)))
    return f"Data set '{repository}'{f' ({part})' if part else ''} could not be loaded from the hub"


def _refusal(what: str, error: Exception, revision: str | None, advice: str) -> DarumeruError:
    """Return the error that says what failed, why, and what can be done."""
    kind, reason = _reason(error, revision)
    return kind(f"{what} ({reason}). {advice}".strip())


def _reason(error: Exception, revision: str | None) -> tuple[type[DarumeruError], str]:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = _chain(error)

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if any(isinstance(link, OSError) and link.errno in (ENOSPC, EDQUOT, EFBIG) for link in chain):
        return (
            DarumeruError,
            f"no space is left for the hub's cache in '{constants.HF_HOME}': free some, or set HF_HOME",
        )
    if has(GatedRepoError):
        return UserError, f"it is gated: accept its terms on its page on the hub, then {_LOGIN}"
    if has(RevisionNotFoundError):
        return UserError, f"it has no revision '{revision}'"
    if has(RepositoryNotFoundError):
        return UserError, f"there is no such repository; if it is private, {_LOGIN}"
    if (fault := _fault_of_files(chain)) is not None:
        return DarumeruError, fault
    if has(OfflineModeIsEnabled):
        return DarumeruError, "HF_HUB_OFFLINE is set, and the local cache lacks it"
    if _delay(chain) is not None:
        return DarumeruError, "the hub is busy (429) and stays so: try again later"
    if has(FileMetadataError, JSONDecodeError):
        return DarumeruError, "what answered is not the hub: a proxy or a login page between here and it?"
    if responses := _responses(chain):
        return DarumeruError, f"the hub answered {responses[0].status_code}, and the local cache lacks it"
    if _unreachable(chain) or has(LocalEntryNotFoundError):
        return DarumeruError, "the hub cannot be reached, and the local cache lacks it"
    return DarumeruError, f"{type(error).__name__}: {_first_line(error)}"


def _fault_of_files(chain: Sequence[BaseException]) -> str | None:
    """Return what is wrong with the files of a data set; None if they were not what failed."""
    from datasets.exceptions import DatasetGenerationError
    from datasets.table import CastError

    if not any(isinstance(link, DatasetGenerationError) for link in chain):
        return None
    for link in chain:
        if isinstance(link, CastError):
            missing = sorted(set(link.requested_column_names) - set(link.table_column_names))
            more = sorted(set(link.table_column_names) - set(link.requested_column_names))
            faults = [
                f"{', '.join(names)} {what}" for names, what in ((missing, "missing"), (more, "not in it")) if names
            ]
            return f"its rows are not as its card says: {'; '.join(faults) or 'other types of fields'}"
    cause = next(link for link in chain if not isinstance(link, DatasetGenerationError))
    return f"its files cannot be read, they may be cut or of another kind than their card says: {_first_line(cause)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _unended(error: Exception) -> str:
    return str(error).rstrip(".")
