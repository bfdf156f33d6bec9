"""Tokenizer folders: written so that every loader reads the same ids, and checked for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError
from darumeru.files import read_json, write_json
from lep.tokenizer.vocabulary import Vocabulary

_GENERIC = "TokenizersBackend"
"""The class of transformers 5 that takes `tokenizer.json` as it is; others rebuild it (a Unigram one as BPE, even)."""

PROBES = (
    "Hello, world! It's 12,345.67 – «Привет, мир»: ёлка, объём, съешь ещё этих мягких французских булок.",
    "  leading and  double  spaces\n\n\ttabs\r\nand lines ",
    "emoji 👩‍👩‍👧‍👦 🇷🇺, combining e\u0301 и\u0306, zero\u200bwidth, 漢字かな한글 العربية हिन्दी",
    "def f(x):\n    return x ** 2  # квадрат\n",
    "ПРОПИСНЫЕ слитноСловоНаписанное Latinкириллица mixedСмесь x1y2",
)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `tokenizer_config.json`, or an empty dictionary."""
    path = folder / "tokenizer_config.json"
    return dict(read_json(path)) if path.is_file() else {}


def chat_template(folder: Path) -> str | None:
    """The chat template of a folder, from its own file or from the tokenizer's configuration."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = read_config(folder).get("chat_template")
    return found if isinstance(found, str) else None


def save_tokenizer(
    spec: Mapping[str, Any],
    source: Path,
    target: Path,
    *,
    model_config: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Write a tokenizer folder from a `tokenizer.json` content and the settings of another folder.

    Only `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and the chat template are written; older
    files (`tokenizer.model`, `vocab.json`, `merges.txt`) would still hold the old vocabulary. The class named in the
    configuration is kept if `AutoTokenizer` reads the same ids through it, and is replaced by the generic one if not.

    Args:
        spec: the content of `tokenizer.json`.
        source: the folder whose configuration and chat template are taken over.
        target: an existing folder.
        model_config: the `config.json` that will lie beside it (its model type sways `AutoTokenizer`).
        config: overrides of single keys of `tokenizer_config.json`.

    Returns:
        The class that was written.

    Raises:
        DarumeruError: `AutoTokenizer` reads other ids whatever the class.
    """
    settings = {**read_config(source), **(config or {})}
    template = chat_template(source)
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {
            str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
            for entry in spec.get("added_tokens", [])
        }
    write_json(target / "tokenizer.json", spec)
    if (source / "special_tokens_map.json").is_file():
        shutil.copyfile(source / "special_tokens_map.json", target / "special_tokens_map.json")
    if template is not None:
        settings.pop("chat_template", None)
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")
    tried = []
    for name in dict.fromkeys([str(settings.get("tokenizer_class", _GENERIC)), _GENERIC, "PreTrainedTokenizerFast"]):
        write_json(target / "tokenizer_config.json", {**settings, "tokenizer_class": name})
        difference = loading_difference(target, PROBES, model_config=model_config)
        if difference is None:
            return name
        tried.append(f"{name}: {difference}")
    raise DarumeruError(
        "AutoTokenizer of transformers reads other ids than tokenizer.json says. " + "; ".join(tried) + ". "
        "This model type forces its own tokenizer class; choose another kind of vocabulary for it."
    )


def loading_difference(folder: Path, texts: Sequence[str], *, model_config: Path | None = None) -> str | None:
    """Return how `AutoTokenizer` differs from `tokenizer.json` on these texts; None where all ids agree."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for path in folder.iterdir():
            if path.is_file() and path.suffix in (".json", ".jinja") and path.name != "config.json":
                shutil.copyfile(path, place / path.name)
        config = model_config or folder / "config.json"
        if config.is_file():
            shutil.copyfile(config, place / "config.json")
        direct = Vocabulary(read_json(place / "tokenizer.json")).tokenizer
        try:
            loaded = AutoTokenizer.from_pretrained(place)
        except Exception as error:
            return f"it cannot be loaded ({error})"
        for text in texts:
            wanted = direct.encode(text, add_special_tokens=False).ids
            got = list(loaded(text, add_special_tokens=False)["input_ids"])
            if wanted != got:
                return f"{len(got)} ids instead of {len(wanted)} for {text[:40]!r}"
        if len(loaded) < len(direct.get_vocab(with_added_tokens=True)):
            return f"{len(loaded)} tokens instead of {len(direct.get_vocab(with_added_tokens=True))}"
    return None


def with_ids(spec: Mapping[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """A copy of a `tokenizer.json` whose added tokens and post-processor use new ids.

    The model's own vocabulary is left as it is.

    Args:
        spec: the content of `tokenizer.json`.
        ids: old id → new id, with an entry for every added token.
    """
    result: dict[str, Any] = dict(spec)
    result["added_tokens"] = sorted(
        ({**entry, "id": ids[entry["id"]]} for entry in spec.get("added_tokens", [])), key=lambda entry: entry["id"]
    )
    result["post_processor"] = _processor(spec.get("post_processor"), ids)
    return result


def _processor(part: Any, ids: Mapping[int, int]) -> Any:
    if not isinstance(part, dict):
        return part
    part = dict(part)
    if part.get("type") == "Sequence":
        part["processors"] = [_processor(item, ids) for item in part["processors"]]
    if part.get("type") == "TemplateProcessing":
        part["special_tokens"] = {
            name: {**entry, "ids": [ids[index] for index in entry["ids"]]}
            for name, entry in part["special_tokens"].items()
        }
    for key in ("sep", "cls"):
        if key in part and isinstance(part[key], list):
            part[key] = [part[key][0], ids[part[key][1]]]
    return part
