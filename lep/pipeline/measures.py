"""The measures of each model in the report, kept as JSON: benchmark, held-out text, speed, examples."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lep.measure.bits import model_bits_per_byte
from lep.measure.held_out import HeldOut, new_tokens_written
from lep.model.checkpoint import locate
from lep.tokenizer.transfer import matching_ids
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

_PROMPTS = 16
"""Beginnings of each held-out text after which new tokens are counted."""


def benchmark(
    model: str, settings: Mapping[str, Any], runs: Path, output: Path, progress: Progress | None = None
) -> None:
    """Evaluate a model as `darumeru run` does; `output` names the run's folder.

    Raises:
        DarumeruError: a task failed; the same call resumes.
    """
    from darumeru.errors import DarumeruError
    from darumeru.evaluation import execute, prepare, settings_of
    from darumeru.files import write_json

    run = execute(prepare(settings_of(model=model, **settings)), runs, progress)
    if failed := run.scores.failed:
        raise DarumeruError(
            f"Tasks of {run.path.name} failed ({', '.join(failed)}). The same command tries them again."
        )
    write_json(output, {"run": run.path.name})


def held_out(
    model: str, base: str, sources: Sequence[str], output: Path, *, field: str, characters: int, device: str
) -> None:
    """Bits per byte of held-out texts, how fast they are read, and the new tokens in what the model writes.

    A token is new if the base's vocabulary lacks it. Texts are read in pieces (`darumeru.scoring.bits`), one at a time;
    float32 on a CPU, the stored type on a GPU.
    """
    import torch
    from transformers import AutoTokenizer

    from darumeru.files import write_json
    from lep.model.loading import load_model

    folder = locate(model)
    old, new = Vocabulary.load(base), Vocabulary.load(folder)
    added = set(new.strings) - set(matching_ids(old, new).values())
    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    dtype: Any = torch.float32 if place == "cpu" else "auto"
    loaded = load_model(folder, dtype).to(place)
    texts = HeldOut.read(sources, field=field, characters=characters, prompts=_PROMPTS)
    measured: dict[str, Any] = {}
    for name, pieces in texts.pieces.items():
        tokens = sum(len(tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in pieces)
        model_bits_per_byte(loaded, tokenizer, pieces[:1])  # the first pass of a process is slow
        began = time.perf_counter()
        bits = model_bits_per_byte(loaded, tokenizer, pieces)
        seconds = time.perf_counter() - began
        wrote = new_tokens_written(loaded, tokenizer, texts.prompts[name], added) if added else None
        measured[name] = {
            "bits_per_byte": bits,
            "characters": sum(map(len, pieces)),
            "tokens": tokens,
            "seconds": seconds,
            "share_of_new_tokens": wrote.share if wrote else None,
            "chances_taken": wrote.taken if wrote else None,
        }
    rows = int(loaded.get_input_embeddings().weight.shape[0])
    write_json(
        output,
        {"texts": measured, "tokens": len(new.strings), "new_tokens": len(added), "rows": rows,
         "parameters": sum(p.numel() for p in loaded.parameters()), "dtype": str(loaded.dtype), "device": place,
         "machine": machine()},
    )  # fmt: skip


def speed(
    models: Mapping[str, str],
    sources: Sequence[str],
    settings: Mapping[str, Any],
    output: Path,
    *,
    field: str,
    tokens: int,
    progress: Progress | None = None,
) -> None:
    """Measure how fast models write: up to `tokens` tokens greedily after prefixes of held-out texts, through one engine.

    Models are measured one after another in one process, each after a request that does not count; loading does not count.
    """
    from darumeru.engines import engine_class
    from darumeru.evaluation import settings_of
    from darumeru.files import write_json
    from darumeru.inference import OpenedModel, longest_input
    from darumeru.requests import Request

    texts = HeldOut.read(sources, field=field, prompts=8)
    engine = engine_class(settings["engine"], settings.get("device", "auto"))
    found: dict[str, Any] = {}
    for done, (name, source) in enumerate(models.items()):
        if progress:
            progress(done, len(models))
        opened = OpenedModel.of(settings_of(model=source, **settings))
        tokenizer = opened.tokenizer
        requests = {
            text: [
                Request(f"{text}/{n}", "generate", tuple(tokenizer(prompt)["input_ids"]), prompt, max_tokens=tokens)
                for n, prompt in enumerate(prompts)
            ]
            for text, prompts in texts.prompts.items()
        }
        longest = longest_input(r for asked in requests.values() for r in asked)
        found[name] = {}
        with opened.load(longest) as loaded:
            list(
                loaded.answers(
                    [Request("first", "generate", next(iter(requests.values()))[0].prompt, "", max_tokens=8)]
                )
            )
            for text, asked in requests.items():
                began = time.perf_counter()
                answers = [answer for batch in loaded.answers(asked) for answer in batch]
                seconds = time.perf_counter() - began
                found[name][text] = {
                    "seconds": seconds,
                    "tokens": sum(len(answer.tokens) for answer in answers),
                    "characters": sum(len(answer.text) for answer in answers),
                }
    write_json(
        output,
        {"models": found, "engine": engine.version(), "prompts": 8, "tokens": tokens, "machine": machine()},
    )  # fmt: skip


def examples(
    models: Mapping[str, str],
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    output: Path,
    *,
    tokens: int,
    progress: Progress | None = None,
) -> None:
    """Greedy answers of models to prompts, at most `tokens` tokens; kept as they come."""
    from darumeru.evaluation import settings_of
    from darumeru.files import write_json
    from darumeru.requests import Query
    from lep.calibration.ask import ask

    queries = [Query("generate", [{"role": "user", "content": prompt}], max_tokens=tokens) for prompt in prompts]
    answers: dict[str, list[str | None]] = {}
    output.parent.mkdir(parents=True, exist_ok=True)
    for name, source in models.items():
        asked = ask(settings_of(model=source, **settings), queries, output.parent, f"examples-{name}", progress)
        answers[name] = [answer.text if answer else None for answer in asked.answers]
    write_json(output, {"prompts": list(prompts), "answers": answers, "max_tokens": tokens})


def chats(
    models: Mapping[str, str],
    conversations: str,
    output: Path,
    *,
    limit: int,
    device: str,
    progress: Progress | None = None,
) -> None:
    """Measure whether models still chat (`lep.measure.chat`); a turn has to end within `limit` characters."""
    import torch

    from darumeru.files import write_json
    from lep.calibration.chat import read_chats
    from lep.measure.chat import chat_measures

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    asked = list(read_chats(Path(conversations)))
    found = {}
    for done, (name, source) in enumerate(models.items()):
        if progress:
            progress(done, len(models))
        found[name] = chat_measures(locate(source), asked, limit=limit, device=place)
    write_json(output, {"models": found, "conversations": len(asked), "characters": limit})


def machine() -> dict[str, Any]:
    """Return the machine that the figures were computed on."""
    import os

    import torch

    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    except OSError:
        name = ""
    return {
        "processor": name or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.system(),
    }
