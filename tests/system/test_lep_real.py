"""Real tokenizers and a real model: the invariants, and a SmolLM2 that learns Russian words and forgets nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.texts import read_all
from lep.initialisation.job import initialise
from lep.propagation.job import propagate
from lep.tokenizer.vocabulary import Vocabulary
from lep.vocab.check import check_vocabulary
from lep.vocab.commands import extend_vocabulary
from lep.vocab.train import train_vocabulary
from support.real import needs_vllm

PROMPTS = ("What is the capital of France?", "List three prime numbers.", "def fibonacci(n):")


def folder_of(name: str, request: pytest.FixtureRequest) -> Path:
    if name == "smollm2":
        found: Path = request.getfixturevalue("smollm2")
        return found
    if name == "mistral":
        shared: Path = request.getfixturevalue("shared")
        return shared / "tokenizers" / "mistral-7b-v0.1"
    tokenizers: Path = request.getfixturevalue("tokenizers_folder")
    return tokenizers / name


def extended(old: Path, shared: Path, output: Path) -> Path:
    """A vocabulary with 2,000 tokens for Russian more."""
    extend_vocabulary(old, [shared / "corpus" / "ru" / "ruslit_publicism.jsonl"], output, add=2000)
    return output


# Group "vllm": where this vocabulary, a model with it, and the loaded vLLM are.
@pytest.fixture(scope="module")
def russian_vocabulary(smollm2: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extended(smollm2, shared, tmp_path_factory.mktemp("smollm2") / "vocabulary")


@pytest.fixture(scope="module")
def russian_smollm2(smollm2: Path, russian_vocabulary: Path) -> Path:
    initialise(smollm2, russian_vocabulary, russian_vocabulary.parent / "model")
    return russian_vocabulary.parent / "model"


@pytest.mark.parametrize(
    "name", [pytest.param("smollm2", marks=pytest.mark.xdist_group("vllm")), "mistral", "qwen3", "llama3"]
)
def test_invariants_on_real_tokenizers(name: str, request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> None:
    old = folder_of(name, request)
    new = (
        request.getfixturevalue("russian_vocabulary") if name == "smollm2" else extended(old, shared, tmp_path / "new")
    )
    texts = read_all([*(shared / "corpus" / "en").glob("*.jsonl"), *(shared / "corpus" / "ru").glob("*.jsonl")])
    first, second = Vocabulary.load(old), Vocabulary.load(new)
    checks = check_vocabulary(first, second, texts, scripts=("Cyrillic",))
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 10
    assert second.size == first.size + 2000


@pytest.mark.parametrize("name", ["smollm2", "mistral"])
def test_real_unigram_vocabularies(name: str, request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    old = folder_of(name, request)
    corpus = [shared / "corpus" / "ru" / "ruslit_publicism.jsonl", *(shared / "corpus" / "en").glob("ud*.jsonl")]
    train_vocabulary(old, corpus, tmp_path / "new", kind="unigram", size=8000)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "new")
    direct = Vocabulary.load(tmp_path / "new").tokenizer
    base: Any = AutoTokenizer.from_pretrained(old)
    for text in read_all(list((shared / "corpus" / "ru").glob("xquad*"))):
        ids = direct.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        # Mistral's own tokenizer drops one leading space; the new one may lose nothing beyond that.
        assert loaded.decode(ids) == base.decode(base(text, add_special_tokens=False)["input_ids"])
        assert loaded.decode(ids).lstrip(" ") == text.lstrip(" ")


@pytest.mark.xdist_group("vllm")
def test_english_stays_in_transformers(smollm2: Path, russian_smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answers = []
    for folder in (smollm2, russian_smollm2):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for prompt in PROMPTS[:2]:
            ids = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"]
            answers.append(model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist())
    assert answers[:2] == answers[2:]


@pytest.mark.xdist_group("vllm")
def test_propagating_an_unchanged_model_gives_it_back(smollm2: Path, russian_smollm2: Path, tmp_path: Path) -> None:
    import torch

    from lep.model.checkpoint import open_checkpoint
    from lep.model.shards import read_rows

    manifest = propagate(smollm2, russian_smollm2, smollm2, tmp_path / "out")
    left, right = (open_checkpoint(folder).embeddings.input for folder in (russian_smollm2, tmp_path / "out"))
    assert torch.equal(read_rows(left, 0, left.shape[0]), read_rows(right, 0, right.shape[0]))
    assert manifest["measures"]["embedding"]["rank"] == 576
    assert manifest["measures"]["embedding"]["distance_from_identity"] == 0


@needs_vllm
@pytest.mark.xdist_group("vllm")
def test_english_stays_in_vllm(vllm: Any, russian_smollm2: Path) -> None:
    """The old model in the shared engine, the new one in a process of its own, as vLLM loads it by itself."""
    code = (
        "import json, sys\n"
        "from vllm import LLM, SamplingParams\n"
        "if __name__ == '__main__':\n"
        "    llm = LLM(sys.argv[1], dtype='float32', enforce_eager=True, max_model_len=256)\n"
        "    chats = [[{'role': 'user', 'content': p}] for p in json.loads(sys.argv[2])]\n"
        "    out = llm.chat(chats, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)\n"
        "    print('ANSWERS', json.dumps([[list(o.prompt_token_ids), list(o.outputs[0].token_ids)] for o in out]))\n"
    )
    from vllm import SamplingParams

    chats: list[Any] = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    said = vllm.engine._llm.chat(chats, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
    old = [[list(o.prompt_token_ids), list(o.outputs[0].token_ids)] for o in said]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, str(russian_smollm2), json.dumps(PROMPTS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr[-2000:]
    new = next(line for line in done.stdout.splitlines() if line.startswith("ANSWERS"))
    assert json.loads(new.removeprefix("ANSWERS")) == old
    assert all(tokens for _, tokens in old)


def test_rows_that_a_text_never_uses_hardly_move(smollm2: Path, tmp_path: Path) -> None:
    """With Adam's usual β2 and ε they move by half of the learning rate a step, through the softmax alone."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from lep.pretraining.job import pretrain
    from lep.pretraining.settings import settings_of

    words = "Мороз и солнце; день чудесный! Ещё ты дремлешь, друг прелестный — пора, красавица, проснись. " * 30
    (tmp_path / "text.txt").write_text(words, encoding="utf-8")
    settings = settings_of(
        total_batch_size=2, per_device_train_batch_size=2, block_size=64, max_steps=2, save_steps=2, warmup_steps=0,
        learning_rate=1e-3, lr_scheduler_type="constant", dtype="float32",
    )  # fmt: skip
    pretrain(smollm2, [tmp_path / "text.txt"], tmp_path / "out", settings=settings)
    (masters,) = load_file(next((tmp_path / "out").rglob("weights.safetensors"))).values()
    before = load_file(smollm2 / "model.safetensors")["model.embed_tokens.weight"].float()
    moved = (masters - before).abs().mean(dim=1) / 2 / 1e-3
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2)
    used = sorted(set(tokenizer(words)["input_ids"]))
    assert float(moved[used].median()) > 0.2
    assert float(moved.median()) < 0.02
