"""Likelihood: of gold answers, and of whole texts in bits per byte; the suite for checks inside a training run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import darumeru
from darumeru.errors import UserError
from darumeru.evaluation import execute, prepare, settings_of
from darumeru.task.suite import Catalogue
from support.tiny import KnowingEngine


def evaluate(model: Path, output: Path, **more: Any) -> darumeru.Run:
    return darumeru.evaluate(model, output=output, engine="hf", dtype="float32", **{"data": "mini", **more})


def test_bits_per_byte_is_that_of_a_plain_forward_pass(tiny_base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    corpus = tmp_path / "text.txt"
    corpus.write_text("Кот спит на окне.\nСобака бежит домой.", encoding="utf-8")
    run = evaluate(tiny_base, tmp_path / "runs", tasks=["bpb_corpus"], corpus=corpus)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32),
        AutoTokenizer.from_pretrained(tiny_base),
    )
    text = corpus.read_text(encoding="utf-8")
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        loss = model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert run.scores["tasks"]["bpb_corpus"]["score"]["value"] == pytest.approx(
        loss / math.log(2) / len(text.encode()), rel=1e-4
    )
    assert run.header["tasks"]["bpb_corpus"]["data"]["test"]["source"] == "file:text.txt"


def test_long_texts_are_cut_by_characters_and_lose_nothing(tiny_base: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "long.txt"
    corpus.write_text(("слово " * 300 + "\n") * 5, encoding="utf-8")
    task = Catalogue().load(["bpb_corpus"], "mini", corpus=corpus)["bpb_corpus"]
    texts = [doc["text"] for doc in task.docs()]
    assert len(texts) > 1
    assert max(map(len, texts)) <= 2000
    assert "".join(texts).strip() == corpus.read_text(encoding="utf-8").strip()


def test_likelihood_of_gold_answers_needs_no_generation(tiny_base: Path, tmp_path: Path) -> None:
    tasks = ["parus", "multiq", "sum_extractive", "cp_sent_ru", "use"]
    run = evaluate(tiny_base, tmp_path, tasks=tasks, limit=3, likelihood=True, num_fewshot=1)
    for task in tasks:
        result = run.scores["tasks"][task]
        assert result["primary"] == ["logprob"]
        assert result["score"]["value"] < 0
        assert result["metrics"]["bits_per_byte"]["value"] > 0
        assert result["generated_tokens"] == 0
    plain = evaluate(tiny_base, tmp_path, tasks=tasks, limit=3, num_fewshot=1)
    assert plain.path != run.path
    assert darumeru.rescore(run).scores["tasks"]["parus"]["score"] == run.scores["tasks"]["parus"]["score"]


def test_training_suite(tiny_chat: Path, tmp_path: Path) -> None:
    plan = prepare(settings_of(model=str(tiny_chat), data="mini", suite="darumeru-train"))
    whole = prepare(settings_of(model=str(tiny_chat), data="mini"))
    assert len(plan.documents["mmlu_ru_tenth"]) == 4
    choices = [sum(r.kind == "choose" for r in p.requests) for p in (plan, whole)]
    assert choices[0] < choices[1] / 8
    generated = [sum(r.max_tokens for r in p.requests) for p in (plan, whole)]
    assert generated[0] < generated[1]
    scores = execute(plan, tmp_path, open_engine=KnowingEngine).scores
    # Bits per byte and log-probabilities have no place in a mean of shares.
    counted = [r["score"]["value"] for t, r in scores["tasks"].items() if t.endswith("_tenth") or t.startswith("cp_")]
    assert len(counted) == 13
    assert scores["suite"]["value"] == pytest.approx(sum(counted) / 13)
    assert all(r["metrics"]["acc"]["value"] == 1.0 for t, r in scores["tasks"].items() if t.endswith("_tenth"))
    assert scores["groups"]["bits_per_byte"]["value"] == 0.0


def test_a_corpus_that_is_no_text(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as UTF-8 text"):
        evaluate(tiny_base, tmp_path, tasks=["bpb_corpus"], corpus=tmp_path / "x.txt")
