"""What is measured of a model of a study: held-out documents, symbols per token, copying, and its training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from darumeru.data.texts import read_all, read_texts
from darumeru.errors import UserError
from darumeru.files import read_jsonl, write_json
from darumeru.scoring.bits import pieces
from darumeru.scoring.text import lcs_share
from lep.calibration.copies import draw_copies
from lep.measure.held_out import BITS
from lep.model.loading import load_model
from lep.model.manifest import read_manifest
from lep.vocab.report import report_vocabularies

SHOWN = 2
"""Lines that are copied in the prompt before the one that the model has to copy."""
LENGTHS = (40, 160)
"""Characters of a line to copy."""
_ROOM = 1.5
"""Tokens of an answer at most, times those of the line."""
_READ = 20_000_000
"""Characters of the corpus that lines are drawn from."""


def measure_model(
    folder: Path,
    held_out: Sequence[str],
    corpus: Sequence[str],
    output: Path,
    *,
    field: str,
    characters: int,
    copies: int,
    device: str,
    trained: bool,
) -> None:
    """Measure a model and write what was found as JSON.

    Args:
        folder: of the model.
        held_out: NAME=FILE.
        corpus: texts that lines to copy are drawn from.
        output: the file.
        field: text field of the files.
        characters: of each held-out text that are read.
        copies: lines to copy; 0: copying is not measured.
        device: where the model runs.
        trained: the folder is the output of a training, whose curve and costs are taken over.

    Raises:
        UserError: an empty text, or too few lines to copy.
    """
    import torch
    from transformers import AutoTokenizer

    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = load_model(folder, torch.float32 if place == "cpu" else "auto").to(place)
    model.eval()
    rows = int(model.get_input_embeddings().weight.shape[0])
    texts: dict[str, dict[str, Any]] = {}
    for row in report_vocabularies([folder], held_out, field=field).rows:
        texts[row.text] = {"symbols_per_token": row.symbols_per_token, "tokens_per_word": row.tokens_per_word,
                           "bytes_per_token": row.bytes_per_token}  # fmt: skip
    for source in held_out:
        name, _, file = source.partition("=")
        found = list(documents(model, tokenizer, read_all([file], field=field, limit=characters), characters))
        texts[name] |= {"nats": [nats for nats, _ in found], "bytes": [size for _, size in found]}
    write_json(
        output,
        {
            "texts": texts,
            "tokens": len(tokenizer),
            "copied": copied(model, tokenizer, lines_of(corpus, copies, field)) if copies else None,
            "training": training_of(folder) | {"rows": rows} if trained else None,
            "threads": torch.get_num_threads(),
        },
    )


def documents(model: Any, tokenizer: Any, texts: Sequence[str], characters: int) -> Iterator[tuple[float, int]]:
    """Yield nats and bytes of each document, read as `lep.measure.bits` reads it; `characters` in all at most."""
    from lep.measure.bits import model_bits_per_byte

    for text in texts:
        kept = text[:characters]
        characters -= len(kept)
        if cut := pieces(kept):
            size = sum(len(piece.encode()) for piece in cut)
            yield model_bits_per_byte(model, tokenizer, cut) * math.log(2) * size, size


def training_of(folder: Path) -> dict[str, Any]:
    """Return the curve of a training and what it took."""
    curve = []
    for _, entry in read_jsonl(folder / "history.jsonl"):
        if f"eval_{BITS}" in entry:
            bits = {
                key.removeprefix(f"eval_{BITS}").removeprefix("_"): value
                for key, value in entry.items()
                if key.startswith(f"eval_{BITS}")
            }
            curve.append({"step": entry["step"], "tokens": entry["num_input_tokens_seen"], "characters": entry["characters"],
                          "seconds": entry["seconds"], "bits": bits})  # fmt: skip
    measures = (read_manifest(folder) or {})["measures"]
    return {"curve": curve, "steps": measures["steps"], "characters": measures["characters"]}


def lines_of(corpus: Sequence[str], number: int, field: str) -> list[str]:
    """Return lines of the corpus to copy, the first `SHOWN` of them to be shown; drawn alike for all models of a study.

    Raises:
        UserError: the corpus has too few lines of that length.
    """
    try:
        drawn = draw_copies(_lines(corpus, field), (), number + SHOWN, characters=LENGTHS, words=10, seed=0)
    except UserError:
        raise UserError(
            f"The corpus has fewer than {number + SHOWN} lines of {LENGTHS[0]} to {LENGTHS[1]} characters, which copying is "
            "measured on. Set copies to 0, or break its texts into lines."
        ) from None
    return list(drawn.texts)


def _lines(corpus: Sequence[str], field: str) -> Iterator[str]:
    read = 0
    for text in read_texts(corpus, field=field):
        yield from (part for line in text.splitlines() for part in _parts(line.strip()))
        read += len(text)
        if read > _READ:
            return


def _parts(line: str) -> Iterator[str]:
    """Yield a line, or the beginning of one that is too long, cut between words."""
    yield line if len(line) <= LENGTHS[1] else line[: LENGTHS[1]].rpartition(" ")[0]


def copied(model: Any, tokenizer: Any, lines: Sequence[str]) -> list[float]:
    """Return how much of each line a model copies: the share of its characters in the longest common subsequence, 0 to 1.

    The prompt has no words of any language: two lines, each followed by its copy, then the line to copy. The model writes
    greedily up to a blank line.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer.
        lines: `SHOWN` lines to show, then those to copy.
    """
    import torch
    from transformers import GenerationConfig

    shown, asked = lines[:SHOWN], lines[SHOWN:]
    head = "".join(f"{line}\n\n{line}\n\n" for line in shown)
    prompts = [tokenizer(f"{head}{line}\n\n")["input_ids"] for line in asked]
    most = max(len(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in asked)
    end, width = tokenizer.eos_token_id, max(map(len, prompts))
    settings = GenerationConfig(
        max_new_tokens=math.ceil(_ROOM * most), do_sample=False, use_cache=True, eos_token_id=end, pad_token_id=end
    )
    # Filled up at the beginning, so that all are written together.
    ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.no_grad():
        written = model.generate(
            ids, attention_mask=mask, generation_config=settings, stop_strings=["\n\n"], tokenizer=tokenizer
        )
    answers = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
    return [lcs_share(line, answer.partition("\n\n")[0]) for line, answer in zip(asked, answers, strict=True)]
