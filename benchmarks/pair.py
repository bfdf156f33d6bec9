"""A base and an instruct model that really differ: what of chat survives propagation by every method, and direct adaptation.

    python benchmarks/pair.py --model DIR --output DIR [--quick]

DIR holds SmolLM2-135M-Instruct, which stands in for a base model. The script makes, in OUTPUT,

* `instruct`: the base trained on chats (Russian instructions with their answers, texts to copy and to write on in both
  languages), embeddings whole and layers by LoRA, at a rate that takes it far from the base. How far is printed: ‖D − Id‖ / ‖Id‖
  of conversion's map D, and the mean cosine of rows;
* `adapted`: the base with Russian tokens, their rows and a LoRA of the layers trained on Russian and English prose;
* one model for each method of `lep propagate`, with the change of the backbone (delta) and without (instruct);
* for comparison the instruct model with the new tokens as their mean initialisation, nothing trained and nothing carried over;
* `direct` and `direct-chats`: the instruct model itself adapted as the base was, as where no base is to be had; the second
  replays self-made chats (its own answers, copies, texts written on).

Measured on conversations that nothing was trained on: bits per byte of good answers in Russian and English, the share of turns
that end and that keep to the template (`lep.measure.chat`), and DaruCopy on sentences of the mini bundle. A table is printed at
the end; benchmarks/results/pair.json is written after each model (with --quick, OUTPUT/pair.json). What OUTPUT holds already is
neither made nor measured (OUTPUT/measured.json) again: take another one for other options. Needs the shared data folder
(DARUMERU_SHARED).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import darumeru
import lep
from darumeru.data.texts import read_texts
from lep.calibration.chat import read_chats
from lep.model.manifest import read_manifest
from lep.pretraining.settings import settings_of
from lep.propagation import method as methods

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "pair.json"
SHARED = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data"
CORPORA = {"ru": "corpus/ru/ruslit_prose.jsonl.gz", "en": "corpus/en/gutenberg_prose.jsonl.gz"}
INSTRUCTIONS = "prompts/ru_alpaca_seed_tasks.jsonl"
HELD_OUT = 24
"""Instructions, and as many texts in each language, that nothing is trained on."""
SHORT, LONG = 120, 350
"""Characters of a text to copy or to write on."""
TURN = 160
"""Characters within which a turn has to end."""
BACKBONES: tuple[Literal["delta", "instruct"], ...] = ("delta", "instruct")


def write_rows(file: Path, rows: Iterator[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def paragraphs(language: str, *, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield short paragraphs of a corpus, from its document `first` on."""
    texts = itertools.islice(read_texts([SHARED / CORPORA[language]]), first, None)
    lines = (line.strip() for text in texts for line in text.split("\n"))
    fitting = (line for line in lines if SHORT <= len(line) <= LONG)
    return ({"text": line} for line in itertools.islice(fitting, count))


def make_texts(place: Path, options: argparse.Namespace) -> dict[str, Path]:
    """Write corpora, chats to train on and held-out chats; documents of one part are in no other."""
    found = {}
    for language in CORPORA:
        texts = itertools.islice(read_texts([SHARED / CORPORA[language]]), options.documents)
        found[f"corpus-{language}"] = write_rows(place / f"corpus-{language}.jsonl", ({"text": t} for t in texts))
        for part, first, count in (("chats", 1000, 2000), ("held-out", 1600, 400)):
            rows = paragraphs(language, first=first, count=count)
            found[f"{part}-{language}"] = write_rows(place / f"{part}-{language}-texts.jsonl", rows)
    every = [json.loads(line) for line in (SHARED / INSTRUCTIONS).read_text(encoding="utf-8").splitlines()]
    answered = [row for row in every if row["instances"] and len(row["instances"][0]["output"]) <= LONG]
    instructions = write_rows(place / "instructions.jsonl", iter(answered[HELD_OUT:]))
    held_out = write_rows(place / "instructions-held-out.jsonl", iter(answered[:HELD_OUT]))
    length: dict[str, Any] = {"copy_characters": (SHORT, LONG), "force": True}
    lep.make_data(
        None, [instructions], place / "chats.jsonl", answers=True, copy=options.texts, continuations=options.texts,
        copy_corpus=[found["chats-ru"], found["chats-en"]], **length,
    )  # fmt: skip
    for language, prompts in (("ru", [held_out]), ("en", [])):
        lep.make_data(
            None, prompts, place / f"chats-{language}.jsonl", answers=True, continuations=HELD_OUT,
            copy_corpus=[found[f"held-out-{language}"]], **length,
        )  # fmt: skip
    names = ("corpus-ru", "corpus-en", "chats", "chats-ru", "chats-en", "instructions")
    return {name: place / f"{name}.jsonl" for name in names}


def once(folder: Path, make: Callable[[], object]) -> Path:
    """Make a folder, unless it is there; says how long it took."""
    if read_manifest(folder) is None:
        began = time.perf_counter()
        make()
        print(f"{folder.name}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)
    return folder


def make_pair(texts: dict[str, Path], options: argparse.Namespace) -> tuple[Path, Path]:
    """The instruct model and the adapted base."""
    out, model = options.output, options.model
    training: dict[str, Any] = {
        "recipe": "instruct", "train_embeddings": True, "learning_rate": options.rate, "batch": 4, "max_length": 512,
        "max_steps": options.steps, "dtype": options.dtype, "save_every": 1000,
    }  # fmt: skip
    instruct = once(out / "instruct", lambda: lep.calibrate(model, texts["chats"], out / "instruct", **training))
    once(
        out / "tokenizer",
        lambda: lep.extend_vocabulary(model, [texts["corpus-ru"]], out / "tokenizer", add=options.add),
    )
    adapted = adapt(model, "adapted", texts, options)
    return instruct, adapted


def adapt(model: Path, name: str, texts: dict[str, Path], options: argparse.Namespace, *chats: Path) -> Path:
    """The model in the new vocabulary, trained on Russian texts; English ones and, where given, chats are replayed."""
    start, output = options.output / f"{name}-0", options.output / name
    once(start, lambda: lep.initialise(model, options.output / "tokenizer", start))
    settings = settings_of(
        train=options.train, learning_rate=2e-3, dtype=options.dtype, block_size=512, total_batch_size=4,
        per_device_train_batch_size=2, warmup_steps=min(10, options.adapt_steps // 4), max_steps=options.adapt_steps,
        save_steps=10_000, logging_steps=10, replay=(f"{texts['corpus-en']}=0.25", *(f"{file}=0.15" for file in chats)),
    )  # fmt: skip
    return once(output, lambda: lep.pretrain(start, [texts["corpus-ru"]], output, settings=settings))


def own_chats(instruct: Path, texts: dict[str, Path], options: argparse.Namespace) -> Path:
    """Self-made chats of the instruct model: its own answers, copies, texts written on."""
    output: Path = options.output / "own-chats.jsonl"
    count = options.texts // 4
    settings: dict[str, Any] = {
        "copy": count, "continuations": count, "copy_corpus": [options.output / "chats-ru-texts.jsonl"],
        "copy_characters": (SHORT, LONG), "force": True,
    }  # fmt: skip
    asked: dict[str, Any] = {
        "engine": options.engine, "limit": count, "max_tokens": 256, "settings": {"dtype": options.dtype},
    }  # fmt: skip
    try:
        lep.make_data(str(instruct), [texts["instructions"]], output, **asked, **settings)
    except darumeru.DarumeruError as error:  # a model that ends none of its answers
        print(error, flush=True)
        lep.make_data(None, [], output, **settings)
    return output


def measure(folder: Path, texts: dict[str, Path], options: argparse.Namespace) -> dict[str, float]:
    """Chat measures in each language, and DaruCopy."""
    found: dict[str, float] = {}
    for language in CORPORA:
        chats = list(read_chats(texts[f"chats-{language}"]))[: options.chats]
        found |= {f"{name}_{language}": v for name, v in lep.chat_measures(folder, chats, limit=TURN).items()}
    tasks = ["cp_sent_ru", "cp_sent_en"]
    run = darumeru.evaluate(
        folder, output=options.output / "runs", tasks=tasks, data="mini", limit=options.copies, engine=options.engine,
        dtype=options.dtype,
    )  # fmt: skip
    found |= {f"copy_{task[-2:]}": run.scores["tasks"][task]["score"]["value"] for task in tasks}
    return {name: round(value, 4) for name, value in found.items()}


def models(
    instruct: Path, adapted: Path, texts: dict[str, Path], options: argparse.Namespace
) -> Iterator[tuple[str, Path]]:
    """Yield each model to be measured; those that are made for it alone are deleted afterwards."""
    out, base = options.output, options.model
    yield "base, own vocabulary", base
    yield "instruct, own vocabulary", instruct
    yield "adapted base", adapted
    place = out / "propagated"
    lep.initialise(instruct, out / "tokenizer", place, force=True)
    yield "instruct, new tokens as means", place
    yield "instruct, adapted itself", adapt(instruct, "direct", texts, options)
    chats = own_chats(instruct, texts, options)
    yield "instruct, adapted itself with chats", adapt(instruct, "direct-chats", texts, options, chats)
    for name in methods.names():
        for backbone in BACKBONES:
            manifest = lep.propagate(base, adapted, instruct, place, method=name, backbone=backbone, force=True)
            if name == "conversion":
                found = manifest["measures"]["embedding"]
                options.facts |= {key: found[key] for key in ("distance_from_identity", "residual", "correlation")}
                options.facts["trained_tensors"] = manifest["measures"].get("trained_tensors", 0)
            yield f"{name}, backbone {backbone}", place
    shutil.rmtree(place)


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print the table in Markdown."""
    names = list(next(iter(rows.values())))
    print("| model |", " | ".join(names), "|")
    print("|---" * (len(names) + 1) + "|")
    for title, row in rows.items():
        print(f"| {title} |", " | ".join(f"{row[name]:.3f}" for name in names), "|", flush=True)


def main() -> None:
    """Make the pair, propagate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few steps only, to see that all of it works")
    parser.add_argument("--steps", type=int, default=100, help="of the instruct model's training")
    parser.add_argument("--rate", type=float, default=2e-3, help="of that training")
    parser.add_argument("--texts", type=int, default=200, help="to copy, and as many to write on, in that training")
    parser.add_argument("--add", type=int, default=2000, help="new tokens")
    parser.add_argument("--adapt-steps", type=int, default=40, help="of each adaptation, 2,048 tokens each")
    parser.add_argument("--train", default="new-rows+lora", help="as lep pretrain --train")
    parser.add_argument("--documents", type=int, default=300, help="of each language that the adaptation reads")
    parser.add_argument("--chats", type=int, default=12, help="held-out conversations of each language")
    parser.add_argument("--copies", type=int, default=8, help="sentences of each language to copy")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="float32 where a processor lacks AVX512-BF16 or AMX",
    )
    parser.add_argument("--engine", default="hf", help="of DaruCopy")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.adapt_steps, options.texts, options.chats, options.copies = 3, 3, 20, 4, 2
        options.documents, options.add = 20, 200
    options.output.mkdir(parents=True, exist_ok=True)
    options.facts = {}
    results = options.output / RESULTS.name if options.quick else RESULTS
    began = time.perf_counter()
    texts = make_texts(options.output, options)
    instruct, adapted = make_pair(texts, options)
    kept = options.output / "measured.json"
    measured = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    rows: dict[str, dict[str, float]] = {}
    for title, folder in models(instruct, adapted, texts, options):
        rows[title] = measured.get(title) or measure(folder, texts, options)
        kept.write_text(json.dumps(rows | measured), encoding="utf-8")
        print(f"{title}: {rows[title]}", flush=True)
        settings = {k: v for k, v in vars(options).items() if k not in ("facts", "model", "output")}
        result = {"settings": settings, "pair": options.facts, "models": rows}
        results.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(rows)
    print(
        f"The pair: {options.facts}; {(time.perf_counter() - began) / 60:.0f} minutes since the start or the last resumption"
    )


if __name__ == "__main__":
    main()
