"""What an adaptation is worth, and what of it makes it so: SmolLM2 with Russian tokens, every way trained for the same time.

    python benchmarks/adaptation.py --model DIR --output DIR [--minutes 8 | --steps 500] [--seeds 0 1 2] [--ways NAME…] [--jobs 2]
        [--device cuda] [--dtype float32] [--time] [--speeds FILE] [--write [FILE]]
    python benchmarks/adaptation.py --model DIR --output DIR --texts     # for the recipe smollm2-ru
    python benchmarks/adaptation.py --draw FILE.svg                      # the curves of the written results

DIR of `--model` holds SmolLM2-135M-Instruct. Needs the shared data folder (DARUMERU_SHARED). The training texts are Russian prose
with a quarter of modern sentences and paragraphs, a mix of the same kind is replayed in English; held out are news (NTREX, both
languages, whole documents) and prose of authors whom the training texts lack. Each way (`WAYS`) is a `lep pretrain` of its own,
on one core, `--jobs` at a time; how many steps fit into `--minutes` is measured before, and the speeds are written to
OUTPUT/speeds.json: `--speeds` takes them from there, so that a GPU can train what fits into that time of two cores. `control` is
the model in its own vocabulary, trained for as long. Bits per byte are lower the better.

Trainings lie in `--output`, and what is done there is not done again. `--write` puts the figures of what is done into
benchmarks/results/adaptation.json, or into FILE there.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from darumeru.files import write_text
from lep.calibration.data import make_data
from lep.initialisation.job import initialise
from lep.model.manifest import read_manifest
from lep.vocab.commands import extend_vocabulary

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "adaptation.json"
DATA = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data"
HELD_OUT = ("ru_news", "ru_prose", "en_news", "en_prose")
UNSEEN = ("/Turgenev/", "/Chekhov/", "Great Expectations")
"""Authors and books that are held out."""

COMMON = {
    "block-size": "128", "total-batch-size": "8", "per-device-train-batch-size": "8",
    "learning-rate": "2e-3", "lora-learning-rate": "5e-4", "rest-learning-rate": "3e-4", "adam-epsilon": "1e-8",
    "weight-decay": "0", "held-out-characters": "6000", "logging-steps": "10", "attention": "eager",
}  # fmt: skip
REPLAY = {"replay": "{texts}/en_train.jsonl=0.25"}
ROWS = {"train": "new-rows+lora", **REPLAY}
SHARED = {"shared-learning-rate": "1e-4"}
CHATS = {
    "replay": "{texts}/en_train.jsonl=0.2 {texts}/chats.jsonl=0.1", "block-size": "512", "total-batch-size": "2",
    "per-device-train-batch-size": "2", "lora-rank": "32", "lora-learning-rate": "7e-4",
}  # fmt: skip
"""For a model that is used: self-made chats are replayed too, and blocks are long enough for them."""
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "rows": ("mean", {"train": "new-rows"}),
    "matrices": ("mean", {"train": "embeddings", "learning-rate": "1e-3", "adam-epsilon": "1e-5"}),
    "rows+lora": ("mean", {"train": "new-rows+lora"}),
    "rows+lora, replay": ("mean", ROWS),
    "all, replay": ("mean", {"train": "all", **REPLAY, "adam-epsilon": "1e-5"}),
    "rows+lora, replay, rates x3": ("mean", {**ROWS, "learning-rate": "6e-3", "lora-learning-rate": "1.5e-3"}),
    "rows+lora, replay, rates /3": ("mean", {**ROWS, "learning-rate": "7e-4", "lora-learning-rate": "1.7e-4"}),
    "rows+lora, replay, random": ("random", ROWS),
    "rows+lora, replay, weighted": ("weighted", ROWS),
    "rows+lora, replay, own head": ("mean", {**ROWS, "untie": ""}),
    "rows+lora, replay, shared map": ("mean", {**ROWS, **SHARED}),
    "rows+lora, replay, shared map, random": ("random", {**ROWS, **SHARED}),
    "rows+lora, replay, shared map, own head": ("mean", {**ROWS, **SHARED, "untie": ""}),
    "control": ("", {"train": "lora", **REPLAY}),
    "chats": ("mean", {**ROWS, **SHARED, **CHATS}),
    "chats, no shared map": ("mean", {**ROWS, **CHATS}),
    "control, chats": ("", {"train": "lora", **CHATS}),
}
"""Initialisation and options of each way; no initialisation: the model in its own vocabulary."""


def texts(place: Path) -> None:
    """Write the training and the held-out texts."""
    shuffled = random.Random(0)
    prose, held = _split(DATA / "corpus/ru/ruslit_prose.jsonl.gz")
    shuffled.shuffle(held)
    _write(place / "ru_prose.jsonl", held[:40])
    sentences = _read(DATA / "corpus/ru/ud_sentences.jsonl")
    modern = ["\n".join(sentences[i : i + 20]) for i in range(0, len(sentences), 20)]
    modern += _read(DATA / "corpus/ru/xquad_paragraphs.jsonl")
    shuffled.shuffle(prose)
    size = sum(map(len, modern))
    mixed: list[str] = []
    while sum(map(len, mixed)) < 3 * size:
        mixed.append(prose[len(mixed)])
    mixed += modern
    shuffled.shuffle(mixed)
    _write(place / "ru_train.jsonl", mixed)
    english, held = _split(DATA / "corpus/en/gutenberg_prose.jsonl.gz")
    shuffled.shuffle(held)
    _write(place / "en_prose.jsonl", held[:40])
    modern = [_read(DATA / f"corpus/en/{name}.jsonl") for name in ("ud_sentences", "xquad_paragraphs")]
    pages = ["\n".join(rows[i : i + 15]) for rows in modern for i in range(0, len(rows), 15)]
    random.Random(1).shuffle(english)
    size = sum(map(len, pages))
    while sum(map(len, pages)) < 4 * size:
        pages.append(english.pop())
    random.Random(2).shuffle(pages)
    _write(place / "en_train.jsonl", pages)
    rows = [json.loads(line) for line in (DATA / "ntrex_ruen/test.jsonl").open(encoding="utf-8")]
    documents = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["doc"])]
    shuffled.shuffle(documents)
    for language in ("ru", "en"):
        _write(place / f"{language}_news.jsonl", ["\n".join(row[language] for row in rows) for rows in documents])


def _read(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.open(encoding="utf-8")]


def _split(file: Path) -> tuple[list[str], list[str]]:
    """Texts that may be learned, and texts that are held out."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    unseen = [any(part in row["source"] for part in UNSEEN) for row in rows]
    return [r["text"] for r, u in zip(rows, unseen, strict=True) if not u], [
        r["text"] for r, u in zip(rows, unseen, strict=True) if u
    ]


def _write(file: Path, documents: Iterable[str]) -> None:
    file.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents), encoding="utf-8"
    )


def chats(place: Path) -> None:
    """Write conversations with paragraphs of the training texts to copy and to write on."""
    lengths, corpus = (100, 900), []
    for language in ("ru", "en"):
        lines = (line.strip() for text in _read(place / f"{language}_train.jsonl") for line in text.split("\n"))
        fitting = (line for line in lines if lengths[0] <= len(line) <= lengths[1])
        corpus.append(place / f"{language}_paragraphs.jsonl")
        _write(corpus[-1], itertools.islice(fitting, 2000))
    drawn = {"copy": 600, "continuations": 300, "copy_corpus": corpus, "copy_characters": lengths, "force": True}
    make_data(None, [], place / "chats.jsonl", **drawn)


def prepare(options: argparse.Namespace) -> None:
    """Texts, the vocabulary, and the model in it by each initialisation."""
    place = options.output
    (place / "texts").mkdir(parents=True, exist_ok=True)
    if not (place / "texts" / "en_news.jsonl").exists():
        texts(place / "texts")
    if not (place / "texts" / "chats.report.json").exists():
        chats(place / "texts")
    if options.ways and not (place / "vocab" / "lep.json").exists():
        corpus = [place / "texts" / "ru_train.jsonl", DATA / "corpus/ru/ruslit_publicism.jsonl"]
        extend_vocabulary(options.model, corpus, place / "vocab", add=options.add)
    for strategy in {WAYS[way][0] for way in options.ways} - {""}:
        if not (place / strategy / "lep.json").exists():
            initialise(options.model, place / "vocab", place / strategy, strategy=strategy)


def train(
    way: str, seed: int, output: Path, options: argparse.Namespace, *, held_out: bool = True, **more: str
) -> dict[str, Any]:
    """Run `lep pretrain`; the manifest of its output."""
    strategy, changes = WAYS[way]
    place = options.output / "texts"
    settings = COMMON | changes | more | {"seed": str(seed), "device": options.device, "dtype": options.dtype}
    command = [
        sys.executable,
        "-m",
        "lep",
        "pretrain",
        "--model",
        str(options.output / strategy if strategy else options.model),
    ]
    command += ["--corpus", str(place / "ru_train.jsonl"), "--output", str(output), "--original", str(options.model)]
    if held_out:
        command += ["--held-out", *(f"{name}={place / name}.jsonl" for name in HELD_OUT)]
    for name, value in settings.items():
        command += [f"--{name}", *value.format(texts=place).split()]
    environment = os.environ | {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // options.jobs, 1))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    return read_manifest(output) or {}


def folder_of(way: str) -> str:
    """Return the name of a way's folder."""
    return way.replace(", ", "-").replace(" ", "_").replace("/", "_over_")


def speed_of(way: str, options: argparse.Namespace) -> float:
    """Return how many tokens a second a way trains here, as a few steps of it say."""
    few = {"max-steps": "8", "warmup-steps": "1", "logging-steps": "2"}
    probe = train(way, 0, options.output / "probes" / folder_of(way), options, held_out=False, **few)
    return float(probe["measures"]["tokens_per_second"])


def planned(options: argparse.Namespace, pool: ThreadPoolExecutor) -> dict[str, int]:
    """Return how many steps each way gets: those that fit into the given time.

    All are timed before any is trained, so that they are timed alike.
    """
    if options.steps:
        return dict.fromkeys(options.ways, options.steps)
    if options.speeds:
        speeds = json.loads(options.speeds.read_text(encoding="utf-8"))
        if missing := [way for way in options.ways if way not in speeds]:
            raise SystemExit(
                f"{options.speeds} has no speed of {', '.join(missing)}. Time them with --time, or leave them out."
            )
    else:
        speeds = dict(zip(options.ways, pool.map(lambda way: speed_of(way, options), options.ways), strict=True))
        write_text(options.output / "speeds.json", json.dumps(speeds, indent=1) + "\n")
    return {way: max(round(options.minutes * 60 * speeds[way] / (8 * 128)), 20) for way in options.ways}


def trained(way: str, seed: int, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one way with one seed; what came out."""
    output = options.output / "trained" / f"{folder_of(way)}-{seed}"
    every = {
        "save-steps": str(math.ceil(steps / (6 if steps > 500 else 2))),  # where it is measured, too, which takes time
        "warmup-steps": str(math.ceil(steps / 20)),
        "save-total-limit": "2",
    }
    measures = train(way, seed, output, options, **{"max-steps": str(steps), **every})["measures"]
    log = [json.loads(line) for line in (output / "history.jsonl").open(encoding="utf-8")]
    curve = [
        {"step": row["step"], **{name: round(row[f"eval_bits_per_byte_{name}"], 4) for name in HELD_OUT}}
        for row in log
        if "eval_bits_per_byte" in row
    ]
    result = {
        "way": way, "seed": seed, "steps": steps, "tokens": measures["tokens"], "characters": measures["characters"],
        "tokens_per_second": measures["tokens_per_second"], "curve": curve,
        "share_of_new_tokens": measures.get("share_of_new_tokens_ru_news", {}).get("after"),
    }  # fmt: skip
    print(f"{way}, seed {seed}: {curve[-1]}", flush=True)
    return result


def rows_of(results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table: means over seeds, with the standard deviation where there are several."""
    yield "| way | tokens/s | characters | " + " | ".join(HELD_OUT) + " |"
    yield "|---" * (3 + len(HELD_OUT)) + "|"
    first = next(iter(r for r in results if r["way"].startswith("control")), None)
    if first is not None:
        yield "| the original | – | – | " + " | ".join(f"{first['curve'][0][name]:.3f}" for name in HELD_OUT) + " |"
    for way in dict.fromkeys(r["way"] for r in results):
        mine = [r for r in results if r["way"] == way]
        cells = []
        for name in HELD_OUT:
            values = [r["curve"][-1][name] for r in mine]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        speed = statistics.mean(r["tokens_per_second"] for r in mine)
        read = statistics.mean(r["characters"] for r in mine)
        yield f"| {way} | {speed:.0f} | {read / 1e6:.2f} M | " + " | ".join(cells) + " |"


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Draw bits per byte over the text read, a panel for each held-out text: means over seeds, and their standard deviation."""
    import altair as alt

    from darumeru.leaderboard.figures import CONFIG, render

    names = {"chats": "adapted", "chats, no shared map": "adapted, without the shared map", "control, chats": "control"}
    titles = dict(zip(HELD_OUT, ("Russian news", "Russian prose", "English news", "English prose"), strict=True))
    points = [
        {"model": names.get(run["way"], run["way"]), "text": titles[text], "bits": at[text],
         "read": at["step"] / run["steps"] * run["characters"] / 1e6}
        for run in results["runs"]
        for at in run["curve"]
        for text in HELD_OUT
    ]  # fmt: skip
    longest = max(point["read"] for point in points)
    control = next(run for run in results["runs"] if run["way"].startswith("control"))
    points += [
        {"model": "original", "text": titles[text], "bits": control["curve"][0][text], "read": read}
        for text in HELD_OUT
        for read in (0, longest)
    ]
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("read:Q", title="characters read in training, millions", axis=alt.Axis(tickCount=5)),
        color=alt.Color(
            "model:N", title=None, sort=["original", "control", "adapted"], legend=alt.Legend(symbolOpacity=1)
        ),
    )
    height = {"title": "bits per byte (lower is better)", "scale": alt.Scale(zero=False), "axis": alt.Axis(tickCount=5)}
    spread = base.mark_errorband(extent="stdev").encode(y=alt.Y("bits:Q", **height))
    chart = (
        (spread + base.mark_line().encode(y=alt.Y("mean(bits):Q", **height)))
        .properties(width=340, height=220)
        .facet(facet=alt.Facet("text:N", sort=list(titles.values()), title=None), columns=2)
        .resolve_scale(y="independent")
        .configure(aria=False, **CONFIG)
    )
    drawn = render(chart.to_dict())[0]
    drawn = re.sub(r' (aria-[a-z]+|role|class|pointer-events)="[^"]*"', "", drawn)  # half of the file
    file.write_text(re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", drawn), encoding="utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, each way")
    parser.add_argument("--steps", type=int, help="of training, each way, in place of --minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--dtype",
        choices=["bfloat16", "float32"],
        default="bfloat16",
        help="float32 where a processor lacks AVX512-BF16 or AMX",
    )
    parser.add_argument("--time", action="store_true", help="only time the ways, and write OUTPUT/speeds.json")
    parser.add_argument(
        "--speeds", type=Path, metavar="FILE", help="speeds.json of another machine, which sets the steps"
    )
    parser.add_argument("--add", type=int, default=4000, help="new tokens")
    parser.add_argument("--texts", action="store_true", help="only write the texts, into OUTPUT/texts")
    parser.add_argument("--draw", type=Path, metavar="FILE", help=f"only draw {RESULTS.name}")
    parser.add_argument(
        "--write",
        nargs="?",
        const=RESULTS.name,
        metavar="FILE",
        help=f"write the figures to benchmarks/results/FILE [{RESULTS.name}]",
    )
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(RESULTS.read_text(encoding="utf-8")), options.draw)
        return
    if not options.model or not options.output:
        parser.error("give --model and --output, or --draw")
    options.output = options.output.absolute()
    if options.texts:
        options.ways = []
    prepare(options)
    if options.texts:
        return
    settings = {name: getattr(options, name) for name in ("minutes", "steps", "add", "device", "dtype")}
    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        steps = planned(options, pool)
        if options.time:
            return
        jobs = [(way, seed, steps[way], options) for seed in options.seeds for way in options.ways]
        for result in pool.map(trained, *zip(*jobs, strict=True)):
            results.append(result)
            if options.write:
                write_text(RESULTS.with_name(options.write), json.dumps(settings | {"runs": results}) + "\n")
    print("\n".join(rows_of(results)))


if __name__ == "__main__":
    main()
