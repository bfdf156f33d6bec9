"""A whole new vocabulary, BPE or Unigram, with the base model's special tokens and chat template.

Trained by `tokenizers`. The new tokenizer keeps the base's family of pre-processing for BPE (byte-level, or
SentencePiece style with byte fallback); Unigram (Kudo, arXiv 1804.10959) works on words with ▁ for the space, with byte
fallback.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from darumeru.data.texts import read_all, read_texts
from darumeru.errors import UserError
from darumeru.options import Option
from lep.options import Corpus, Field, Force, Model, Output, Texts
from lep.tokenizer.folder import with_ids
from lep.tokenizer.vocabulary import SPACE, Vocabulary
from lep.vocab.commands import Request, finish

Kind = Literal["bpe", "unigram"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_ASCII = [chr(code) for code in range(0x20, 0x7F)] + ["\n", "\t"]
# Far below every learned piece, so that a literal "<0x41>" in a text is never read as the byte.
_BYTE_SCORE = -1e6


def train_vocabulary(
    model: Model,
    corpus: Corpus,
    output: Output,
    *,
    kind: Annotated[Kind, Option("Kind of the vocabulary.")],
    size: Annotated[int, Option("Tokens in all, special ones and bytes included.")],
    texts: Texts = (),
    field: Field = "text",
    force: Force = False,
) -> dict[str, Any]:
    """Train a vocabulary of `size` tokens (special tokens and bytes included) on a corpus; returns the manifest.

    Special tokens come first, in the base's order, with the base's flags.

    Raises:
        UserError: an unknown kind, a size below what bytes and special tokens take, a corpus too small for it.
        DarumeruError: an invariant does not hold, `AutoTokenizer` reading other ids included.
    """
    if kind not in ("bpe", "unigram"):
        raise UserError(f"Unknown kind {kind!r}; choose bpe or unigram.")
    old = Vocabulary.load(model)
    least = len(old.added) + 256 + 1
    if size <= least:
        raise UserError(f"--size must be above {least} (bytes and special tokens of this model), not {size}.")
    read_all(corpus, field=field, limit=1)
    make = _unigram if kind == "unigram" else _byte_level if old.family == "byte-level" else _sentencepiece
    spec = make(old, read_texts(corpus, field=field), size)
    if len(Vocabulary(spec).strings) < size:
        raise UserError(
            f"The corpus is enough for {len(Vocabulary(spec).strings):,} tokens, and {size:,} are wanted. "
            "Give more text or ask for fewer."
        )
    request = Request(old, Path(output), tuple(corpus), tuple(texts), field=field, force=force)
    return finish(request, "train", spec, {"kind": kind, "size": size})


def _byte_level(old: Vocabulary, texts: Iterable[str], size: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    if old.tokenizer.normalizer is not None:
        made.normalizer = old.tokenizer.normalizer
    made.pre_tokenizer = old.tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=_added_texts(old),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    model = json.loads(made.to_str())["model"]
    settings = {key: value for key, value in old.spec["model"].items() if key not in ("vocab", "merges")}
    return _assemble(old, {**settings, "vocab": model["vocab"], "merges": model["merges"]}, {})


def _sentencepiece(old: Vocabulary, texts: Iterable[str], size: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token=str(old.spec["model"].get("unk_token") or "<unk>")))
    # The finished tokenizer merges across whole texts, as the base does; tokens never hold punctuation beside letters.
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    added = _added_texts(old)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*added, *_BYTES],
        initial_alphabet=[SPACE, *_ASCII[1:]],
        limit_alphabet=max(500, size // 20),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    model = json.loads(made.to_str())["model"]
    settings = {key: value for key, value in old.spec["model"].items() if key not in ("vocab", "merges")}
    settings |= {"type": "BPE", "byte_fallback": True}
    return _assemble(old, {**settings, "vocab": model["vocab"], "merges": model["merges"]}, {})


def _unigram(old: Vocabulary, texts: Iterable[str], size: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    byte_level = old.family == "byte-level"
    # A SentencePiece-style base keeps its own way to write spaces (in its normaliser or in its Metaspace step), so that
    # what it decodes without loss stays so.
    own_step = old.spec.get("pre_tokenizer") or {}
    scheme = own_step.get("prepend_scheme", "never") if own_step.get("type") == "Metaspace" else "never"
    metaspace = {"replacement": SPACE, "prepend_scheme": scheme}
    made = Tokenizer(models.Unigram())
    if not byte_level and old.tokenizer.normalizer is not None:
        made.normalizer = old.tokenizer.normalizer
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(**metaspace, split=True),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    added = _added_texts(old)
    unknown = "<unk>"
    first = [*added] if unknown in added else [*added, unknown]
    room = size - len(first) - len(_BYTES)
    trainer = trainers.UnigramTrainer(
        # The trainer ends a little below what it is asked for; the least likely pieces are cut below.
        vocab_size=room + room // 5,
        special_tokens=[unknown],
        unk_token=unknown,
        initial_alphabet=[SPACE, *_ASCII[1:]],
        max_piece_length=16,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    taken = {*first, *_BYTES}
    learned = [item for item in json.loads(made.to_str())["model"]["vocab"] if item[0] not in taken]
    learned = learned[:room]
    # A literal special token inside a text is cut out beforehand, so that these scores never matter.
    vocab = [[text, _BYTE_SCORE] for text in first] + [[text, _BYTE_SCORE] for text in _BYTES] + learned
    model = {"type": "Unigram", "unk_id": first.index(unknown), "vocab": vocab, "byte_fallback": True}
    changes = {"pre_tokenizer": json.loads(made.to_str())["pre_tokenizer"]}
    if byte_level:
        made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        changes |= {"normalizer": None, "decoder": json.loads(made.to_str())["decoder"]}
    return _assemble(old, model, changes)


def _assemble(old: Vocabulary, model: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The old `tokenizer.json` with another model, special tokens and post-processor moved to their new ids."""
    vocab = model["vocab"]
    places = vocab if isinstance(vocab, dict) else {item[0]: index for index, item in enumerate(vocab)}
    ids = {index: int(places[entry["content"]]) for index, entry in old.added.items()}
    spec = with_ids({**old.spec, **changes, "model": model}, ids)
    if model["type"] == "Unigram":
        spec["post_processor"] = _without_byte_level(spec["post_processor"])
    return spec


def _without_byte_level(part: Any) -> Any:
    """A post-processor without its byte-level steps, which would trim offsets by another family's rules."""
    if not isinstance(part, dict) or part.get("type") == "ByteLevel":
        return None
    if part.get("type") == "Sequence":
        steps = [step for step in map(_without_byte_level, part["processors"]) if step is not None]
        return {**part, "processors": steps} if steps else None
    return part


def _added_texts(old: Vocabulary) -> list[str]:
    return [old.added[index]["content"] for index in np.sort(list(old.added)).tolist()]
