"""Models: a folder or a hub id, checked before anything is loaded, and its fingerprints."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from darumeru import hub
from darumeru.errors import DarumeruError, UserError
from darumeru.files import file_sha256, fingerprint, read_json
from darumeru.weights import loaded, read_header, weight_files

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "vocab.txt")

_READERS = 4
"""Files of weights that are read at once for their fingerprint."""


@dataclass(frozen=True)
class Model:
    """A model folder that has been looked through."""

    name: str
    """As the user gave it: the hub id, or the last part of the path."""
    path: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    """Empty where they are not looked at, because a server has them."""
    parameters: int
    revision: str | None = None
    tokenizer_path: Path | None = None
    """The tokenizer's folder, where it is another."""

    @cached_property
    def weights_sha256(self) -> str:
        """Fingerprint of all weights: of each file's name and SHA-256."""
        return fingerprint([[p.name, s.result()] for p, s in zip(self.weights, self._sums, strict=True)])

    def hash_ahead(self) -> None:
        """Begin to read the weights for their fingerprint, while something else is done.

        A process that ends does not wait for it; a file that cannot be read is told by `weights_sha256`.
        """
        _ = self._sums

    @cached_property
    def _sums(self) -> list[Future[str]]:
        turn = threading.Semaphore(_READERS)
        return [_in_background(file, turn) for file in self.weights]

    @cached_property
    def tokenizer_sha256(self) -> str:
        """Fingerprint of the tokenizer's files."""
        return tokenizer_sha256(self.tokenizer_path or self.path)

    def text_config(self, key: str) -> Any:
        """Return a setting of the language model, which multimodal models keep in `text_config`."""
        inner = self.config.get("text_config") or {}
        return inner.get(key, self.config.get(key))

    def context_len(self, tokenizer: Any) -> int | None:
        """Return the longest input in tokens, if the model says."""
        lengths = [self.text_config("max_position_embeddings"), self.text_config("n_positions")]
        lengths.append(tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None)
        known = [int(n) for n in lengths if n]
        return min(known) if known else None

    @cached_property
    def generation(self) -> dict[str, Any]:
        """The generation settings."""
        file = self.path / "generation_config.json"
        return dict(read_json(file)) if file.is_file() else {}

    def eos_ids(self, tokenizer: Any) -> frozenset[int]:
        """Return the tokens that end an answer: those of the generation settings, the configuration and the tokenizer."""
        found: set[int] = set()
        for value in (self.generation.get("eos_token_id"), self.text_config("eos_token_id"), tokenizer.eos_token_id):
            found.update(value if isinstance(value, list) else [] if value is None else [value])
        return frozenset(found)

    def tokenizer(self, trust_remote_code: bool = False) -> Any:
        """Return the model's tokenizer.

        Raises:
            UserError: there is none, or it needs code of its own.
            DarumeruError: transformers cannot load it.
        """
        return load_tokenizer(self.tokenizer_path or self.path, trust_remote_code)


def open_model(
    model: str | Path, revision: str | None = None, trust_remote_code: bool = False, weights: bool = True
) -> Model:
    """Find a model and look through its folder without loading it.

    Args:
        model: a folder, or a hub id, which is downloaded into the hub's cache (only safetensors and text files, and
            Python code with `trust_remote_code`).
        revision: of the hub id.
        trust_remote_code: allow a model that brings Python code of its own.
        weights: look at the weights too; without, configuration and tokenizer are enough.

    Raises:
        UserError: it is missing, truncated, has no safetensors weights, or needs code that was not allowed.
        DarumeruError: the hub cannot be reached.
    """
    path = Path(model)
    if path.is_dir():
        if revision is not None:
            raise UserError(f"--revision '{revision}' belongs to a hub id, but '{model}' is a folder.")
        return _look(path.resolve().name, path, None, trust_remote_code, weights)
    text = str(model)
    if path.exists():
        raise UserError(f"Model '{model}' is a file; give the folder that holds config.json and *.safetensors.")
    if not hub.is_hub_id(text):
        raise UserError(f"Model folder '{model}' does not exist, and the name is no hub id (owner/name).")
    folder = hub.model_folder(text, revision=revision, weights=weights, code=trust_remote_code)
    return _look(text, folder, folder.name, trust_remote_code, weights)


def _look(name: str, path: Path, revision: str | None, trust_remote_code: bool, weights: bool) -> Model:
    if not (path / "config.json").is_file():
        raise UserError(f"Model folder '{path}' has no config.json: it is no model that transformers can load.")
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"'{path / 'config.json'}' is no JSON object.")
    if config.get("auto_map") and not trust_remote_code:
        raise UserError(
            f"Model '{name}' brings Python code of its own. Read it, and if you trust it run again with --trust-remote-code."
        )
    files = weight_files(path) if weights else []
    # Each is looked at: is it whole?
    values = {file: sum(tensor.values for tensor in read_header(file)[0].values()) for file in files}
    parameters = sum(values[file] for file in loaded(files))
    return Model(name, path, config, tuple(files), parameters, revision)


def _in_background(file: Path, turn: threading.Semaphore) -> Future[str]:
    """Compute a file's SHA-256 in a thread that the end of the process does not wait for, when it has its turn."""
    found: Future[str] = Future()

    def work() -> None:
        try:
            with turn:
                found.set_result(file_sha256(file))
        except Exception as error:  # raised where the result is asked for
            found.set_exception(error)

    threading.Thread(target=work, name="weights", daemon=True).start()
    return found


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer in a folder.

    Raises:
        UserError: there is none, or it needs code of its own.
        DarumeruError: transformers cannot load it.
    """
    if not has_tokenizer(folder):
        raise UserError(
            f"Model folder '{folder}' has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}). "
            "Copy the tokenizer's files of the model it was trained from into it."
        )
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise DarumeruError(
            f"The tokenizer of '{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}"
        ) from error


def tokenizer_sha256(folder: Path) -> str:
    """Return the fingerprint of the tokenizer's files in a folder."""
    names = (*_TOKENIZER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return fingerprint([[n, file_sha256(folder / n)] for n in names if (folder / n).is_file()])


def template_sha256(template: str | None) -> str | None:
    """Return the fingerprint of a chat template; None where there is none."""
    return hashlib.sha256(template.encode()).hexdigest() if template else None


def adapter_sha256(adapter: Path) -> str:
    """Return the fingerprint of a LoRA adapter's folder.

    Raises:
        UserError: the folder holds no adapter in safetensors.
    """
    files = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    for file in files:
        if not file.is_file():
            raise UserError(f"--adapter '{adapter}' is no LoRA adapter in PEFT's format: '{file.name}' is missing.")
    read_header(files[1])
    return fingerprint([[f.name, file_sha256(f)] for f in files])
