"""Models on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from darumeru.hub.refusals import refusal

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TEXT_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


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
        raise refusal(what, error, revision, "Check the name, or give the path of a model folder.") from error
