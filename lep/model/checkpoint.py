"""A model folder read and written tensor by tensor, without building the model.

Where the embeddings are among its tensors is found by `lep.model.embeddings`.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru import hub
from darumeru.errors import UserError
from darumeru.files import read_json, write_json
from darumeru.weights import StoredTensor, read_header
from lep.model.embeddings import Embeddings, find_embeddings
from lep.model.folders import need_space
from lep.model.shards import NewTensor, gather_rows, read_rows, write_shard

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_INDEX = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_OTHER_TOKENIZERS = re.compile(
    r"tekken\.json|tokenizer\.model.*|spiece\.model|sentencepiece.*\.model|vocab\.txt|.*\.tiktoken"
)
"""Other formats of the same tokenizer, which loaders prefer or fall back to, and which would still hold the old tokens."""
_OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ckpt"}
"""Other formats of the same weights, which would still hold the old embeddings."""
_OTHER_CONFIGS = {"params.json"}
"""The configuration of such weights (Mistral's), which states the old vocabulary."""


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its configuration, the tensors of its safetensors files, and its embeddings."""

    folder: Path
    config: dict[str, Any]
    architecture: str
    tensors: dict[str, StoredTensor]
    metadata: dict[Path, dict[str, str]]
    embeddings: Embeddings

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def locate(source: str | Path, *, revision: str | None = None, weights: bool = True) -> Path:
    """Return the local folder of a model: `source` itself, or a snapshot of it from the Hugging Face hub.

    Args:
        source: a folder or a hub id `owner/name`.
        revision: branch, tag or commit on the hub.
        weights: whether the safetensors files are wanted too.

    Raises:
        UserError: there is neither such a folder nor such a repository.
        DarumeruError: the hub cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if not (hub.is_hub_id(name) and "/" in name):
        raise UserError(f"There is no folder {name}. Name a model folder or a hub id such as owner/name.")
    return hub.model_folder(name, revision=revision, weights=weights)


def open_checkpoint(source: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Read the configuration and the tensor headers of a model folder; no weights are loaded.

    Raises:
        UserError: no such folder, no safetensors, an unknown architecture, a truncated shard, or embeddings that
            cannot be found.
    """
    folder = locate(source, revision=revision)
    config = read_json(folder / "config.json")
    files = _shard_files(folder)
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[Path, dict[str, str]] = {}
    for file in files:
        found, metadata[file] = read_header(file)
        tensors.update(found)
    architecture, embeddings = find_embeddings(folder, tensors)
    return Checkpoint(folder, config, architecture, tensors, metadata, embeddings)


def read_blocks(tensor: StoredTensor, block: int = 8192) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows) of a tensor, `block` rows at a time, in the stored type."""
    for start in range(0, tensor.shape[0], block):
        yield start, read_rows(tensor, start, min(start + block, tensor.shape[0]))


def mean_row(tensor: StoredTensor, rows: int) -> NDArray[np.float64]:
    """The mean of the first `rows` rows in float64 (used for padding rows: its logit never exceeds the largest)."""
    import torch

    total = torch.zeros(tensor.shape[1:], dtype=torch.float64)
    for start, block in read_blocks(tensor):
        total += block[: max(0, rows - start)].to(torch.float64).sum(dim=0)
    result: NDArray[np.float64] = (total / rows).numpy()
    return result


def write_checkpoint(
    source: Checkpoint,
    folder: Path,
    *,
    replace: Mapping[str, NewTensor],
    config: Mapping[str, Any],
    tokenizer: Path | None = None,
    generation_config: Mapping[str, Any] | None = None,
    link: bool = False,
    add: Mapping[str, NewTensor] = MappingProxyType({}),
) -> None:
    """Write a model folder that differs from `source` in the named tensors, the configuration and the tokenizer.

    Shards without a changed tensor are copied (hard-linked with `link`), others are streamed. Other formats of weights
    and tokenizer and subfolders are left behind, since they would keep the old vocabulary.

    Args:
        source: the model to start from; never changed.
        folder: an existing empty folder.
        replace: new tensors by their stored name.
        config: the whole new `config.json`.
        tokenizer: a folder whose tokenizer files replace those of `source`; None keeps them.
        generation_config: the new `generation_config.json`; None keeps the old one.
        link: hard-link unchanged files instead of copying them.
        add: tensors that `source` lacks, written beside its embedding.
    """
    place = source.embeddings.input.file
    dropped = source.embeddings.extra.name if source.embeddings.extra is not None else None
    changed = {source.tensors[name].file for name in replace}
    if dropped is not None:
        changed.add(source.tensors[dropped].file)
    if add:
        changed.add(place)
    sizes = {file: file.stat().st_size for file in source.metadata}
    grown = sum(_new_bytes(tensor) - source.tensors[name].nbytes for name, tensor in replace.items())
    grown += sum(map(_new_bytes, add.values()))
    need_space(folder, sum(n for file, n in sizes.items() if not link or file in changed) + max(grown, 0))

    total = 0
    weight_map: dict[str, str] = {}
    for file in source.metadata:
        stored = {name: tensor for name, tensor in source.tensors.items() if tensor.file == file and name != dropped}
        own = add if file == place else {}
        weight_map |= dict.fromkeys([*stored, *own], file.name)
        if file in changed:
            tensors = {name: replace.get(name, tensor) for name, tensor in stored.items()} | dict(own)
            total += write_shard(folder / file.name, tensors, source.metadata[file])
        else:
            total += sum(tensor.nbytes for tensor in stored.values())
            _copy_file(file, folder / file.name, link)
    if (source.folder / _INDEX).is_file():
        write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})

    written = {"config.json", _INDEX, "lep.json", *(file.name for file in source.metadata)}
    if generation_config is not None:
        written.add("generation_config.json")
        write_json(folder / "generation_config.json", generation_config)
    if tokenizer is not None:
        written |= set(_TOKENIZER_FILES)
        copy_tokenizer(tokenizer, folder)
    for path in sorted(source.folder.iterdir()):
        skipped = path.name in written or path.name.startswith(".") or path.suffix in {*_OTHER_WEIGHTS, ".safetensors"}
        skipped |= path.name in _OTHER_CONFIGS
        skipped |= tokenizer is not None and _OTHER_TOKENIZERS.fullmatch(path.name) is not None
        if path.is_file() and not skipped and not path.name.endswith(".index.json"):
            _copy_file(path, folder / path.name, link=False)
    write_json(folder / "config.json", config)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer files of one folder into another."""
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            _copy_file(source / name, folder / name, link=False)


def config_with(
    config: Mapping[str, Any],
    *,
    old_rows: int,
    rows: int,
    ids: Mapping[int, int],
    tied: bool | None = None,
) -> dict[str, Any]:
    """A copy of a model or generation configuration for another vocabulary.

    Args:
        config: the content of `config.json` or `generation_config.json`.
        old_rows: rows of the old embedding; every `vocab_size` with this value is changed.
        rows: rows of the new embedding.
        ids: old token id → new token id, applied to every `*_token_id`, `*_token_ids`, `*_token_index` and to the
            lists of suppressed or forced tokens. An id that is not in `ids` is dropped (None); that of a token which stands
            for images or sound, which transformers wants as a number, becomes -1, which no token has.
        tied: what `tie_word_embeddings` must say; None leaves it.
    """
    result: dict[str, Any] = copy.deepcopy(dict(config))
    is_model = "model_type" in result
    seen = _rewrite(result, old_rows, rows, ids)
    if is_model and not seen:
        # Published configurations leave out values that equal the class's default.
        target = result["text_config"] if isinstance(result.get("text_config"), dict) else result
        target["vocab_size"] = rows
    if tied is not None and is_model:
        result["tie_word_embeddings"] = tied
    return result


def config_rows(model: Checkpoint) -> int:
    """The `vocab_size` that the configuration states (of the text model, in a multimodal one)."""
    text = model.config.get("text_config")
    config = text if isinstance(text, dict) else model.config
    return int(config.get("vocab_size", model.embeddings.rows))


_SEEN_OR_HEARD = re.compile("image_|video_|vision_|audio_|boi_|eoi_")
"""How keys of the tokens that stand for images or sound begin."""


def _rewrite(config: dict[str, Any], old_rows: int, rows: int, ids: Mapping[int, int]) -> bool:
    seen = False
    for key, value in list(config.items()):
        if isinstance(value, dict):
            seen |= _rewrite(value, old_rows, rows, ids)
        elif key == "vocab_size" and isinstance(value, int):
            if value == old_rows:
                config[key] = rows
                seen = True
        elif re.search(r"_token_(id|ids|index)$|^(begin_)?suppress_tokens$|^bad_words_ids$", key):
            mapped = _map_ids(value, ids)
            config[key] = -1 if mapped is None and value is not None and _SEEN_OR_HEARD.match(key) else mapped
    return seen


def _map_ids(value: Any, ids: Mapping[int, int]) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return ids.get(value) if value >= 0 else value
    if isinstance(value, list):
        mapped = [_map_ids(item, ids) for item in value]
        return [item for item in mapped if item is not None]
    return value


def _new_bytes(tensor: NewTensor) -> int:
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    return sizes.get(tensor.dtype, 4) * int(np.prod(tensor.shape, dtype=np.int64))


def _copy_file(source: Path, target: Path, link: bool) -> None:
    # The hub's cache holds links; a link to the real file is wanted in both cases.
    real = source.resolve()
    target.unlink(missing_ok=True)  # not through a link to a file elsewhere, of either kind
    if link:
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another disk: copy
    shutil.copyfile(real, target)


def _shard_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        content = read_json(index)
        names = sorted(set(content.get("weight_map", {}).values()))
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():
                raise UserError(f"{index} names the shard {name!r}, which is not in {folder}. Fetch the model again.")
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        hint = (
            "It holds weights in another format; save it as safetensors with transformers' save_pretrained first."
            if any(path.suffix in _OTHER_WEIGHTS for path in folder.iterdir())
            else "Name a folder that holds a model."
        )
        raise UserError(f"{folder} has no model.safetensors. {hint}")
    return files


def gather_mixed(tensor: StoredTensor, rows: NDArray[np.int64]) -> torch.Tensor:
    """Rows of a tensor in any order, repeats allowed, len(rows) x dim in the stored type."""
    import torch

    unique, back = np.unique(rows, return_inverse=True)
    return gather_rows(tensor, unique)[torch.from_numpy(back)]
