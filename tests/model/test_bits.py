"""Bits per byte: one cut and one number, whoever measures it."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import darumeru
import lep

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
