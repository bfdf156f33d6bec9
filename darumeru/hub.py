"""The Hugging Face hub: everything that is fetched from it is asked for here, and whatever fails is said in one sentence.

A repository that does not exist, is gated or lacks the revision is a `UserError`, for asking again would not help; a hub
that cannot be reached is a `DarumeruError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError, UserError

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEXT_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_LOGIN = "log in with 'hf auth login' or set HF_TOKEN"


class LoadingScriptError(DarumeruError):
    """A data set that only a Python script of its own can load, which is not run."""


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
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked, HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception as error:  # as in `model_folder`
        return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {_first_line(error)})"
    return None


def dataset_revision(repository: str, branch: str | None = None, *, advice: str = "") -> str:
    """Return the commit that a data set's branch (the main one if None) is at.

    Args:
        repository: the hub id.
        branch: a branch or tag.
        advice: a sentence that ends the message of an error: what to do without the hub.

    Raises:
        UserError: there is no such repository or branch, or it is gated.
        DarumeruError: the hub cannot be reached.
    """
    import huggingface_hub

    try:
        sha = huggingface_hub.HfApi().dataset_info(repository, revision=branch).sha
    except Exception as error:
        raise _refusal(_not_loaded(repository), error, branch, advice) from error
    if sha is None:
        raise DarumeruError(f"The hub gave no revision for data set '{repository}'.")
    return sha


def dataset_rows(
    repository: str, configuration: str | None, split: str, revision: str, *, advice: str = ""
) -> list[dict[str, Any]]:
    """Return all rows of a split.

    Args:
        repository: the hub id.
        configuration: the data set's configuration, if it has several.
        split: the split's name.
        revision: the commit to read.
        advice: as for `dataset_revision`.

    Raises:
        LoadingScriptError: the data set needs a script of its own.
        UserError: there is no such repository or revision, or it is gated.
        DarumeruError: it cannot be loaded, or the hub cannot be reached.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(repository, configuration, split=split, revision=revision)
        return [dict(row) for row in loaded]
    except Exception as error:
        if isinstance(error, RuntimeError) and "script" in str(error).lower():  # as datasets >= 4 says it
            raise LoadingScriptError(f"{_not_loaded(repository)} ({_first_line(error)}).") from error
        raise _refusal(_not_loaded(repository), error, revision, advice) from error


def stream_rows(
    repository: str, configuration: str | None = None, split: str = "train", *, advice: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split of the main branch; nothing but the current one is kept.

    Raises:
        UserError: there is no such repository, or it is gated.
        DarumeruError: it cannot be loaded, or the hub cannot be reached.
    """
    import datasets

    try:
        yield from datasets.load_dataset(repository, configuration, split=split, streaming=True)
    except Exception as error:
        raise _refusal(_not_loaded(repository), error, None, advice) from error


def _not_loaded(repository: str) -> str:
    return f"Data set '{repository}' could not be loaded from the hub"


def _refusal(what: str, error: Exception, revision: str | None, advice: str) -> DarumeruError:
    """Return the error that says what failed, why, and what can be done."""
    kind, reason = _reason(error, revision)
    return kind(f"{what} ({reason}). {advice}".strip())


def _reason(error: Exception, revision: str | None) -> tuple[type[DarumeruError], str]:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:  # `datasets` raises errors of its own from the client's
        chain.append(cause)

    def has(*kinds: type[Exception]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if has(GatedRepoError):
        return UserError, f"it is gated: accept its terms on its page on the hub, then {_LOGIN}"
    if has(RevisionNotFoundError):
        return UserError, f"it has no revision '{revision}'"
    if has(RepositoryNotFoundError):
        return UserError, f"there is no such repository; if it is private, {_LOGIN}"
    if has(OfflineModeIsEnabled):
        return DarumeruError, "HF_HUB_OFFLINE is set, and the local cache lacks it"
    if has(LocalEntryNotFoundError):
        return DarumeruError, "the hub cannot be reached, and the local cache lacks it"
    return DarumeruError, f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
