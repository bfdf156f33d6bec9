"""The commands of `lep vocab`: a model folder and a corpus in, a checked tokenizer folder out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from darumeru.data.texts import read_all, read_texts
from darumeru.errors import DarumeruError, UserError
from darumeru.options import Option
from lep.model.checkpoint import locate
from lep.model.folders import new_folder
from lep.model.manifest import write_manifest
from lep.options import Corpus, Field, Force, KeepLanguages, Lang, MinCount, Model, Output, Scripts, Texts
from lep.tokenizer.folder import save_tokenizer
from lep.tokenizer.scripts import has_script, scripts_of
from lep.tokenizer.vocabulary import Vocabulary
from lep.tokenizer.words import count_tokens
from lep.vocab.check import Check, Way, check_vocabulary
from lep.vocab.extend import Extension, extend, prune, without
from lep.vocab.report import id_ranges


@dataclass(frozen=True)
class Request:
    """The arguments of every command of `lep vocab`: the old vocabulary, texts, and where the result goes."""

    old: Vocabulary
    output: Path
    corpus: tuple[str | Path, ...]
    texts: tuple[str | Path, ...] = ()
    keep: tuple[str | Path, ...] = ()
    scripts: tuple[str, ...] = ()
    field: str = "text"
    force: bool = False

    def stream(self) -> Iterator[str]:
        """The corpus, from its start; halves of characters in it are in no word of a script."""
        return read_texts(self.corpus, field=self.field, halves=True)


_SAMPLE_CHARS = 300_000
"""Characters of each text source that the invariants are tried on."""
_USAGE_CHARS = 200_000_000
"""Characters of the corpus that old tokens are counted on."""


def extend_vocabulary(
    model: Model,
    corpus: Corpus,
    output: Output,
    *,
    add: Annotated[int, Option("New tokens to append.")],
    lang: Lang = "ru",
    scripts: Scripts = None,
    texts: Texts = (),
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> dict[str, Any]:
    """Append `add` tokens to a BPE vocabulary by continued BPE; returns the manifest.

    Old tokens keep their ids, texts without the scripts keep their encoding, every new token can be produced.

    Raises:
        UserError: the corpus is too small, holds none of the scripts or cannot be read; a Unigram tokenizer.
        DarumeruError: an invariant does not hold; nothing is written then.
    """
    request = _request(model, output, corpus, texts, (), lang, scripts, field, force)
    made = extend(request.old, request.stream(), add=add, scripts=request.scripts, min_count=min_count)
    return finish(request, "extend", made.spec, {"add": add, "min_count": min_count}, made)


def optimize_vocabulary(
    model: Model,
    corpus: Corpus,
    output: Output,
    *,
    keep: Annotated[int, Option("Old tokens to keep, bytes and special ones included.")],
    add: Annotated[int, Option("New tokens to append.")],
    keep_languages: KeepLanguages = (),
    lang: Lang = "ru",
    scripts: Scripts = None,
    texts: Texts = (),
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> dict[str, Any]:
    """Cut a BPE vocabulary to its `keep` most used tokens, then append `add` new ones; returns the manifest.

    Bytes, added tokens and every token that `keep_languages` texts use stay; the least used leaves of the merge tree go
    first. Ids are closed up in the old order, special tokens included, so `lep init` must follow.

    Raises:
        UserError: also where `keep` is more than there is or less than must stay.
        DarumeruError: an invariant does not hold.
    """
    request = _request(model, output, corpus, texts, keep_languages, lang, scripts, field, force)
    old = request.old
    if not 0 < keep < len(old.strings):
        raise UserError(f"--keep must be between 1 and {len(old.strings) - 1:,} for this tokenizer, not {keep:,}.")
    gone = _least_used(request, remove=len(old.strings) - keep)
    spec, _ = without(old, gone, compact=True)
    made = extend(Vocabulary(spec), request.stream(), add=add, scripts=request.scripts, min_count=min_count)
    return finish(request, "optimize", made.spec, {"keep": keep, "add": add, "min_count": min_count}, made)


def swap_vocabulary(
    model: Model,
    corpus: Corpus,
    output: Output,
    *,
    count: Annotated[int, Option("Tokens to replace.")],
    keep_languages: KeepLanguages = (),
    lang: Lang = "ru",
    scripts: Scripts = None,
    texts: Texts = (),
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> dict[str, Any]:
    """Replace the `count` least used tokens by new ones at their ids, so that the model keeps its shape.

    Raises:
        UserError: also where fewer tokens than that may go.
        DarumeruError: an invariant does not hold.
    """
    request = _request(model, output, corpus, texts, keep_languages, lang, scripts, field, force)
    old = request.old
    if not 0 < count < len(old.strings):
        raise UserError(f"--count must be between 1 and {len(old.strings) - 1:,} for this tokenizer, not {count:,}.")
    gone = sorted(_least_used(request, remove=count))
    spec, _ = without(old, gone, compact=False)
    made = extend(Vocabulary(spec), request.stream(), add=count, scripts=request.scripts, min_count=min_count, ids=gone)
    return finish(request, "swap", made.spec, {"count": count, "min_count": min_count}, made)


def check_folders(
    old: str | Path,
    new: str | Path,
    texts: Texts,
    *,
    lang: Lang = "ru",
    scripts: Scripts = None,
    field: Field = "text",
) -> list[Check]:
    """The invariants of a new tokenizer folder against the old one, tried on texts (see `lep.vocab.check`)."""
    vocabularies = [Vocabulary.load(folder) for folder in (old, new)]
    tried = read_all(texts, field=field, limit=20 * _SAMPLE_CHARS) if texts else []
    return check_vocabulary(vocabularies[0], vocabularies[1], tried, scripts=scripts_of(lang, scripts))


def _request(
    model: str | Path,
    output: str | Path,
    corpus: Sequence[str | Path],
    texts: Sequence[str | Path],
    keep: Sequence[str | Path],
    lang: str,
    scripts: Sequence[str] | None,
    field: str,
    force: bool,
) -> Request:
    wanted = scripts_of(lang, scripts)
    old = Vocabulary.load(model)
    return Request(old, Path(output), tuple(corpus), tuple(texts), tuple(keep), wanted, field, force)


def _least_used(request: Request, *, remove: int) -> set[int]:
    usage = count_tokens(read_texts(request.corpus, field=request.field), request.old, limit=_USAGE_CHARS)
    if not usage.any():
        raise UserError(f"There is no text in {', '.join(map(str, request.corpus))}.")
    protect: list[int] = []
    if request.keep:
        needed = count_tokens(read_texts(request.keep, field=request.field), request.old)
        protect = needed.nonzero()[0].tolist()
        usage = usage + needed
    return prune(request.old, usage, remove=remove, protect=protect)


def finish(
    request: Request, way: Way, spec: Mapping[str, Any], settings: Mapping[str, Any], made: Extension | None = None
) -> dict[str, Any]:
    """Write the tokenizer to a temporary folder, check it there, and let it appear only if every invariant holds.

    Args:
        request: what was asked for.
        way: how the vocabulary was made.
        spec: the new `tokenizer.json`.
        settings: for the manifest.
        made: figures of an extension, for the manifest.

    Raises:
        DarumeruError: an invariant does not hold.
    """
    old, scripts = request.old, request.scripts
    source = locate(old.folder or "", weights=False)
    model_config = source / "config.json" if (source / "config.json").is_file() else None
    sample = read_all(request.corpus, field=request.field, limit=_SAMPLE_CHARS)
    tried = list(sample)
    if request.texts:
        tried += read_all(request.texts, field=request.field, limit=20 * _SAMPLE_CHARS)
    keep = read_all(request.keep, field=request.field, limit=20 * _SAMPLE_CHARS) if request.keep else []
    with new_folder(request.output, inputs=[source], force=request.force) as place:
        name = save_tokenizer(spec, source, place, model_config=model_config)
        new = Vocabulary.load(place)
        checks = check_vocabulary(old, new, tried, scripts=scripts, way=way, keep=keep, model_config=model_config)
        failed = [check for check in checks if not check.passed]
        if failed:
            raise DarumeruError(
                "The new tokenizer breaks an invariant and was not written: "
                + "; ".join(f"{check.name} ({check.detail})" for check in failed)
                + "."
            )
        measures: dict[str, Any] = {
            "family": new.family,
            "tokens": {"old": len(old.strings), "new": len(new.strings)},
            "symbols_per_token": {"old": _density(old, sample, scripts), "new": _density(new, sample, scripts)},
            "tokenizer_class": name,
            "checks": {check.name: check.detail for check in checks},
        }
        if made is not None:
            measures |= {
                "added": len(made.new),
                "added_ids": id_ranges(made.new),
                "revived": len(made.revived),
                "words": {"different": made.words[0], "all": made.words[1]},
                "count_of_last_token": made.counts[-1],
            }
        written = {
            **settings,
            "scripts": list(scripts),
            "corpus": _names(request.corpus),
            **({"keep_languages": _names(request.keep)} if request.keep else {}),
        }
        return write_manifest(place, f"vocab {way}", inputs={"model": source}, settings=written, measures=measures)


def _density(vocabulary: Vocabulary, texts: Sequence[str], scripts: tuple[str, ...]) -> float:
    """Characters per token over the texts that hold the scripts (the corpus itself: an upper bound, not held out)."""
    chosen = [text for text in texts if has_script(text, scripts)]
    tokens = sum(len(item.ids) for item in vocabulary.tokenizer.encode_batch_fast(chosen, add_special_tokens=False))
    return sum(map(len, chosen)) / max(tokens, 1)


def _names(sources: Sequence[str | Path]) -> list[str]:
    return [str(source) if str(source).startswith("hub:") else Path(source).name for source in sources]
