"""Vocabularies on real tokenizers and corpora: what is gained, and how long it takes.

    python benchmarks/vocab.py table --model NAME=FOLDER ...   # before and after on held-out news, both languages
    python benchmarks/vocab.py learn --model FOLDER            # time and memory for 25,000 merges from corpus/ru
    python benchmarks/vocab.py rows --old FOLDER --new FOLDER  # time and memory to initialise the new rows

Corpora are those of the shared data folder (DARUMERU_SHARED, else ../shared beside the repository): learned on
ruslit_prose, measured on the NTREX news texts, which no vocabulary has seen. Results: benchmarks/results/vocab-*.json.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data"
PROSE = DATA / "corpus" / "ru" / "ruslit_prose.jsonl.gz"


def news() -> dict[str, list[str]]:
    """NTREX: the same 1,501 news sentences in Russian and English."""
    rows = [json.loads(line) for line in (DATA / "ntrex_ruen" / "test.jsonl").read_text().splitlines()]
    return {"ru": [row["ru"] for row in rows], "en": [row["en"] for row in rows]}


def density(tokenizer: Any, texts: list[str]) -> float:
    """Characters per token."""
    return sum(map(len, texts)) / sum(len(item.ids) for item in tokenizer.encode_batch(texts, add_special_tokens=False))


def table(models: dict[str, str], sizes: Iterable[int]) -> dict[str, Any]:
    """Extend each tokenizer by each size; beside it a byte-level BPE of the same size trained from nothing."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers import models as kinds

    from darumeru.data.texts import read_texts
    from lep.tokenizer.vocabulary import Vocabulary
    from lep.vocab.extend import extend

    texts = news()
    # Every English text of the data folder: prose, Wikipedia, news, exam questions.
    english = [*texts["en"]]
    for name in ("gutenberg_prose.jsonl.gz", "ud_sentences.jsonl", "xquad_paragraphs.jsonl"):
        english += list(read_texts([DATA / "corpus" / "en" / name]))
    rows = []
    for size in sizes:
        made = Tokenizer(kinds.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        made.train_from_iterator(read_texts([PROSE]), trainer)
        rows.append({"tokenizer": "byte-level BPE from nothing", "size": size, "ru_after": density(made, texts["ru"])})
        print(json.dumps(rows[-1]), flush=True)
    for name, folder in models.items():
        old = Vocabulary.load(folder)
        for size in sizes:
            started = time.perf_counter()
            result = extend(old, read_texts([PROSE]), add=size, scripts=("Cyrillic",))
            seconds = time.perf_counter() - started
            new = Vocabulary(result.spec)
            before, after = (
                [item.ids for item in v.tokenizer.encode_batch(english, add_special_tokens=False)] for v in (old, new)
            )
            alone = new.bare.encode_batch([new.strings[index] for index in result.new])
            rows.append(
                {
                    "tokenizer": name,
                    "tokens_before": len(old.strings),
                    "added": size,
                    "ru_before": density(old.tokenizer, texts["ru"]),
                    "ru_after": density(new.tokenizer, texts["ru"]),
                    "en_before": density(old.tokenizer, texts["en"]),
                    "en_after": density(new.tokenizer, texts["en"]),
                    "unreachable": sum(item.ids != [i] for i, item in zip(result.new, alone, strict=True)),
                    "english_texts": len(english),
                    "english_texts_changed": sum(a != b for a, b in zip(before, after, strict=True)),
                    "seconds": round(seconds, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return {"learned_on": PROSE.name, "measured_on": "NTREX news, 1,501 sentences in each language", "rows": rows}


def learn(folder: str, merges: int) -> dict[str, Any]:
    """`lep`'s learner on all of corpus/ru, and a plain Python loop over the same segmented words (extrapolated)."""
    from darumeru.data.texts import read_texts
    from lep.tokenizer.vocabulary import Vocabulary
    from lep.tokenizer.words import count_words, segment
    from lep.vocab.extend import extend

    old = Vocabulary.load(folder)
    files = sorted((DATA / "corpus" / "ru").iterdir())
    started = time.perf_counter()
    result = extend(old, read_texts(files), add=merges, scripts=("Cyrillic",))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    counted = count_words(read_texts(files), old, ("Cyrillic",))
    flat, lengths = segment(counted, old)
    ends = np.cumsum(lengths).tolist()
    ids = flat.tolist()
    words = [tuple(ids[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    counts = list(counted.values())
    tried = 5
    begun = time.perf_counter()
    for number in range(tried):
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in zip(words, counts, strict=True):
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        for index, word in enumerate(words):
            if best[0] in word:
                joined: list[int] = []
                at = 0
                while at < len(word):
                    if word[at : at + 2] == best:
                        joined.append(10**6 + number)
                        at += 2
                    else:
                        joined.append(word[at])
                        at += 1
                words[index] = tuple(joined)
    each = (time.perf_counter() - begun) / tried
    return {
        "corpus": [file.name for file in files],
        "words": {"different": result.words[0], "all": result.words[1]},
        "merges": merges,
        "seconds, reading the corpus included": round(seconds, 1),
        "peak_gb": round(peak, 3),
        "plain Python loop": {
            "seconds_per_merge (first 5)": round(each, 2),
            "seconds for all, EXTRAPOLATED": round(each * merges),
        },
    }


def rows(old: str, new: str, dim: int) -> dict[str, Any]:
    """`lep init` on made-up matrices of the old vocabulary's size, and a plain loop over the new tokens."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        parts = {}
        for part in ("make", "ours", "plain"):
            command = [sys.executable, __file__, "rows", "--old", old, "--new", new, "--dim", str(dim)]
            command += ["--part", part, "--place", str(place)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            parts[part] = json.loads(done.stdout.splitlines()[-1])
    del parts["make"]
    return {"old": Path(old).name, "new": Path(new).name, "dim": dim, "matrices": 2, **parts}


def rows_part(part: str, old: str, new: str, dim: int, place: Path) -> dict[str, Any]:
    """One process of `rows`."""
    import torch

    from lep.tokenizer.vocabulary import Vocabulary

    size = Vocabulary.load(old).size
    if part == "make":
        from lep.model.checkpoint import copy_tokenizer
        from lep.model.shards import NewTensor, write_shard

        (place / "old").mkdir()
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim, "intermediate_size": dim,
            "num_hidden_layers": 0, "num_attention_heads": dim // 128, "vocab_size": size, "tie_word_embeddings": False,
        }  # fmt: skip
        (place / "old" / "config.json").write_text(json.dumps(config))
        copy_tokenizer(Path(old), place / "old")

        def blocks() -> Iterable[torch.Tensor]:
            generator = torch.Generator().manual_seed(0)
            for start in range(0, size, 4096):
                yield torch.randn(min(4096, size - start), dim, generator=generator) * 0.02

        matrix = NewTensor("BF16", (size, dim), blocks)
        tensors = {"model.embed_tokens.weight": matrix, "lm_head.weight": matrix}
        write_shard(place / "old" / "model.safetensors", tensors, {"format": "pt"})
        return {}
    started, processor = time.perf_counter(), time.process_time()
    if part == "ours":
        from lep.initialisation.job import initialise

        manifest = initialise(place / "old", new, place / "out")
        found = {key: manifest["measures"][key] for key in ("tokens", "copied", "averaged")}
    else:
        # The obvious way: load both matrices, encode one token after another, average rows in float32.
        from safetensors.torch import load_file, save_file
        from tokenizers import Tokenizer

        matrices = load_file(place / "old" / "model.safetensors")
        before = Tokenizer.from_file(str(Path(old) / "tokenizer.json"))
        vocabulary = Vocabulary.load(new)
        result = {key: torch.zeros(vocabulary.size, dim, dtype=torch.bfloat16) for key in matrices}
        for index in vocabulary.strings:
            text = vocabulary.bytes_of(index).decode(errors="replace")
            ids = before.encode(text, add_special_tokens=False).ids
            for key, matrix in matrices.items():
                if ids:
                    result[key][index] = matrix[ids].float().mean(dim=0).to(torch.bfloat16)  # type: ignore[index]
        save_file(result, place / "plain.safetensors")
        found = {"tokens": len(vocabulary.strings)}
    seconds = round(time.perf_counter() - started, 2)
    return {
        "seconds": seconds,
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        **found,
    }


def main() -> None:
    """Run one of the three benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "learn", "rows"])
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--size", type=int, action="append")
    parser.add_argument("--merges", type=int, default=25_000)
    parser.add_argument("--old")
    parser.add_argument("--new")
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--part")
    parser.add_argument("--place", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(rows_part(arguments.part, arguments.old, arguments.new, arguments.dim, arguments.place)))
        return
    if arguments.what == "table":
        models = dict(model.split("=", 1) for model in arguments.model)
        result = table(models, arguments.size or [8_000, 24_000])
    elif arguments.what == "learn":
        result = learn(arguments.model[0], arguments.merges)
    else:
        result = rows(arguments.old, arguments.new, arguments.dim)
    result["machine"] = {"cores": os.cpu_count(), "load_after": round(os.getloadavg()[0], 2)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"vocab-{arguments.what}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
