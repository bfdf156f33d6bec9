"""What is put on the hub: files as one commit of a pull request, which whoever owns the repository takes or leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.hub.refusals import chain_of, refusal, responses

Kind = Literal["model", "dataset"]
_LOGIN = "Log in with 'hf auth login' or set HF_TOKEN; the token needs the right to write."


@dataclass(frozen=True)
class Standing:
    """What a repository has now of some files."""

    commit: str
    """Of the main branch."""
    sums: dict[str, str]
    """Path → git's SHA-1 of the content, or SHA-256 of a large file; of those that are there."""

    def has(self, path: str, content: bytes) -> bool:
        """Return whether a file is there with this content."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return self.sums.get(path) in (blob, hashlib.sha256(content).hexdigest())


def address(repository: str, kind: Kind) -> str:
    """Return the page of a repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"


def standing(repository: str, kind: Kind, paths: Iterable[str]) -> Standing:
    """Return what a repository's main branch has of some files.

    Raises:
        UserError: there is no such repository, or it is gated.
        DarumeruError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    try:
        client = HfApi()
        commit = str(client.repo_info(repository, repo_type=kind).sha)
        found = client.get_paths_info(repository, list(paths), repo_type=kind, revision=commit)
    except Exception as error:  # the client's and its transport's errors have no common ancestor
        raise _refused(repository, kind, error) from error
    sums = {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in found if isinstance(f, RepoFile)}
    return Standing(commit, sums)


def read_file(repository: str, kind: Kind, path: str, commit: str) -> bytes:
    """Return the content of a file of a repository.

    Raises:
        UserError: there is no such file.
        DarumeruError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        return Path(HfApi().hf_hub_download(repository, path, repo_type=kind, revision=commit)).read_bytes()
    except Exception as error:
        raise _refused(repository, kind, error) from error


def open_pull_request(
    repository: str, kind: Kind, files: Mapping[str, bytes], *, title: str, description: str, commit: str
) -> str:
    """Put files into a repository as a pull request, all or none, and return its address.

    Args:
        repository: `owner/name`.
        kind: of repository.
        files: path → content.
        title: of the pull request.
        description: Markdown.
        commit: what it changes.

    Raises:
        UserError: the hub does not let this user, or takes the files for wrong.
        DarumeruError: the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    try:
        done = HfApi().create_commit(
            repository,
            operations,
            commit_message=title,
            commit_description=description,
            repo_type=kind,
            create_pr=True,
            parent_commit=commit,
        )
    except Exception as error:
        raise _refused(repository, kind, error) from error
    return str(done.pr_url or done.commit_url)


def _refused(repository: str, kind: Kind, error: Exception) -> DarumeruError:
    """Return the error that says why nothing was read of a repository or put into it."""
    from huggingface_hub import constants

    what = f"Nothing was published: {'model' if kind == 'model' else 'data set'} '{repository}'"
    if constants.HF_HUB_OFFLINE:
        return DarumeruError(f"{what} cannot be reached (HF_HUB_OFFLINE is set). Unset it, or use --card FILE.")
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        reason = " ".join(str(error).split()).rstrip(".")
        return UserError(
            f"{what}: the hub refuses the card ({reason}). Repair its metadata between the '---' lines first."
        )
    for response in responses(chain_of(error)):
        if response.status_code in (401, 403) and response.request.method == "POST":
            return UserError(f"{what} lets this user open no pull request ({response.status_code}). {_LOGIN}")
        if response.status_code in (409, 412):
            return DarumeruError(
                f"{what} was changed meanwhile ({response.status_code}). Start the same command again."
            )
        if response.status_code in (400, 413, 422):
            said = response.headers.get("x-error-message") or f"status {response.status_code}"
            return UserError(f"{what} does not take the files ({said}).")
    return refusal(f"{what} cannot be reached", error, None, "Check the name, or use --card FILE.")
