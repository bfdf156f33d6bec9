"""What the hub refuses, said in one sentence; and patience with a hub that is busy.

What asking again would not help is a `UserError`; all else a `DarumeruError`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from errno import EDQUOT, EFBIG, ENOSPC
from json import JSONDecodeError
from typing import Any, TypeVar

from darumeru.errors import DarumeruError, UserError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOGIN = "log in with 'hf auth login' or set HF_TOKEN"
_TRIES = 5
_LONGEST_WAIT = 600
"""Seconds; a hub that asks for more is not waited for."""


def unreachable(seconds: float = 5.0) -> str | None:
    """Return why the hub cannot be asked from here, in a few words; None if it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "not asked, HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=seconds)
    except Exception as error:  # the transport's errors have no ancestor of ours
        return f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {_first_line(error)})"
    return None


def patiently(call: Callable[[], _T]) -> _T:
    """Return what a call to the hub returns; a hub that is busy is asked again after the delay that it names."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return call()
        except Exception as error:
            wait = asked_wait(chain_of(error))
            if wait is None or wait > _LONGEST_WAIT or not tries_left:
                raise
            _log.warning("The hub is busy and asks for %d s of patience.", wait)
            time.sleep(wait)
    raise AssertionError  # the last try returns or raises


def chain_of(error: BaseException) -> list[BaseException]:
    """Return an error and what it came from: `datasets` raises errors of its own from the client's."""
    chain = [error]
    while (origin := chain[-1].__cause__ or chain[-1].__context__) is not None and origin not in chain:
        chain.append(origin)
    return chain


def responses(chain: Sequence[BaseException]) -> list[Any]:
    """Return the hub's answers that errors tell of."""
    from huggingface_hub.errors import HfHubHTTPError

    return [link.response for link in chain if isinstance(link, HfHubHTTPError) and link.response is not None]


def asked_wait(chain: Sequence[BaseException]) -> int | None:
    """Return the seconds after which a busy hub wants to be asked again; None if it is not that."""
    for response in responses(chain):
        if response.status_code == 429:
            given = response.headers.get("retry-after", "").strip()
            return int(given) if given.isdigit() else 1
    return None


def no_answer(chain: Sequence[BaseException]) -> bool:
    """Return whether no answer of the hub came at all, or one that it is out of order."""
    # The client's transport is httpx or httpx2, by its version; both call the ancestor of their errors so.
    return any(
        isinstance(link, ConnectionError | TimeoutError) or "TransportError" in {c.__name__ for c in type(link).__mro__}
        for link in chain
    ) or any(response.status_code >= 500 for response in responses(chain))


def refusal(what: str, error: Exception, revision: str | None, advice: str) -> DarumeruError:
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

    chain = chain_of(error)

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
    if asked_wait(chain) is not None:
        return DarumeruError, "the hub is busy (429) and stays so: try again later"
    if has(FileMetadataError, JSONDecodeError):
        return DarumeruError, "what answered is not the hub: a proxy or a login page between here and it?"
    if answers := responses(chain):
        return DarumeruError, f"the hub answered {answers[0].status_code}, and the local cache lacks it"
    if no_answer(chain) or has(LocalEntryNotFoundError):
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
    cause = next((link for link in chain if not isinstance(link, DatasetGenerationError)), chain[0])
    return f"its files cannot be read, they may be cut or of another kind than their card says: {_first_line(cause)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
