"""Bits per byte: one cut and one number, whoever measures it."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import darumeru
import lep
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level

LINE = "Кот спит на окне, а собака бежит домой. " * 5 + "\n"


def test_lep_and_the_task_measure_the_same_text_alike(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = LINE * 25
    assert len(LINE) == 201
    corpus = tmp_path / "text.txt"
    corpus.write_text(text, encoding="utf-8")
    run = darumeru.evaluate(
        tiny_base,
        output=tmp_path / "runs",
        engine="hf",
        dtype="float32",
        data="mini",
        tasks=["bpb_corpus"],
        corpus=corpus,
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    # Ends of lines are at 200 + 201 n; a piece has at most 2,000 characters and begins with the end of the line before.
    cuts = [0, 200 + 201 * 8, 200 + 201 * 17, len(text)]
    bits = 0.0
    for start, stop in pairwise(cuts):
        ids = torch.tensor(
            [[tokenizer.bos_token_id, *tokenizer(text[start:stop], add_special_tokens=False)["input_ids"]]]
        )
        with torch.inference_mode():
            bits += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1) / math.log(2)
    wanted = pytest.approx(bits / len(text.encode()), rel=1e-4)
    assert run.scores["tasks"]["bpb_corpus"]["score"]["value"] == wanted
    assert lep.bits_per_byte(tiny_base, [text]) == wanted


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_piece_longer_than_the_context_is_read_in_windows(make_model: Callable[..., Path], kind: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    positions = {"gpt2": {"n_positions": 64}, "llama": {"max_position_embeddings": 64}}[kind]
    folder = save_byte_level(make_model("short", kind, rows=448, **positions), ENGLISH, 400)
    tokenizer, text = AutoTokenizer.from_pretrained(folder), " ".join(RUSSIAN)[:120]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert 63 < len(ids) <= 4 * 63
    count = next(n for n in (2, 3, 4) if len(ids) <= n * 63)  # a token is before each window
    nats, size = 0.0, math.ceil(len(ids) / count)
    for start in range(0, len(ids), size):
        row = torch.tensor([[tokenizer.bos_token_id, *ids[start : start + size]]])
        nats += model(row, labels=row).loss.item() * (row.shape[1] - 1)
    assert lep.bits_per_byte(folder, [text]) == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)
    # Bytes are counted whole: windows of noise cost about as much a byte as one.
    assert lep.bits_per_byte(folder, [text]) == pytest.approx(lep.bits_per_byte(folder, [text[:20]]), rel=0.2)
