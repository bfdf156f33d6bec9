"""Conversations replayed in a training: in the chat template, whole, and so that turns end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from darumeru.errors import UserError
from lep.measure.chat import chat_measures
from lep.pretraining.data import Texts
from lep.pretraining.job import pretrain
from support.chats import BY_TURNS, chat
from support.pretraining import documents, make_base, small

TEMPLATE = (
    "{% for m in messages %}{{ '?' if m['role'] == 'user' else '!' }}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}!{% endif %}"
)
TALK = [chat(word, "да") for word in ("булок", "мороз", "солнце", "день")]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    folder = make_base(make_model, "llama-tied", hidden_size=32, intermediate_size=64)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", [{"text": text} for text in documents()])


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return write(tmp_path / "chats.jsonl", [{"messages": messages, "source": "self"} for messages in TALK])


def blocks_of(base: Path, corpus: Path, chats: Path, folder: Path, **changes: Any) -> Any:
    settings = small(replay=(f"{chats}=0.5",), **changes)
    return Texts([corpus], AutoTokenizer.from_pretrained(base), settings).open(folder)


def test_a_conversation_is_a_block_in_the_chat_template(base: Path, corpus: Path, chats: Path, tmp_path: Path) -> None:
    (blocks,) = blocks_of(base, corpus, chats, tmp_path / "blocks").replay
    tokenizer = AutoTokenizer.from_pretrained(base)
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert len(blocks) == len(TALK)
    for number, (asked, answer) in enumerate(TALK):
        ids = blocks[number].tolist()
        assert tokenizer.decode(ids) == f"?{asked['content']}<|end|>!{answer['content']}<|end|>"
        assert ids.count(end) == 2  # a control token, not its letters
        assert ids[-1] == end


def test_other_templates_and_chats_are_read_anew(base: Path, corpus: Path, chats: Path, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    before = blocks_of(base, corpus, chats, folder).replay[0].fingerprint
    assert blocks_of(base, corpus, chats, folder).replay[0].fingerprint == before
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    (blocks,) = blocks_of(base, corpus, chats, folder).replay
    assert blocks.fingerprint != before
    assert AutoTokenizer.from_pretrained(base).decode(blocks[0]) == "булок<|end|>да<|end|>"


def test_a_long_conversation_is_left_out_whole(base: Path, corpus: Path, tmp_path: Path) -> None:
    long = chat("булок", "очень длинный ответ " * 20)
    data = blocks_of(
        base, corpus, write(tmp_path / "c.jsonl", [{"messages": m} for m in [*TALK, long]]), tmp_path / "b"
    )
    assert len(data.replay[0]) == len(TALK)
    assert any("c.jsonl=0.5 do not fit into --block-size 48" in doubt for doubt in data.doubts({}))
    only = write(tmp_path / "only.jsonl", [{"messages": long}])
    with pytest.raises(UserError, match=r"No conversation of only\.jsonl fits into --block-size 48"):
        blocks_of(base, corpus, only, tmp_path / "b2")


def test_what_the_template_refuses_is_left_out_and_said(base: Path, corpus: Path, tmp_path: Path) -> None:
    (base / "chat_template.jinja").write_text(BY_TURNS + TEMPLATE)
    odd = [*TALK[0][:1], *TALK[1]]
    some = write(tmp_path / "some.jsonl", [{"messages": messages} for messages in [odd, *TALK]])
    data = blocks_of(base, corpus, some, tmp_path / "blocks")
    assert len(data.replay[0]) == len(TALK)
    assert any(f"1 of {len(TALK) + 1} conversations of some.jsonl" in doubt for doubt in data.doubts({}))
    assert data.measures(1)["replay"][0]["refused"] == 1
    with pytest.raises(UserError, match=r"refuses all 1 conversations of none\.jsonl"):
        blocks_of(base, corpus, write(tmp_path / "none.jsonl", [{"messages": odd}]), tmp_path / "other")


def test_a_model_without_a_template_is_refused_before_the_training(
    base: Path, corpus: Path, chats: Path, tmp_path: Path
) -> None:
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"chats\.jsonl are conversations, and the model has no chat template"):
        pretrain(base, [corpus], tmp_path / "out", settings=small(replay=(f"{chats}=0.5",)))
    assert not (tmp_path / "out").exists()


def test_the_trained_model_ends_its_turns(base: Path, corpus: Path, chats: Path, tmp_path: Path) -> None:
    """What it is for: the same training without the conversations does not know where an answer ends."""
    shared = {
        "train": "all",
        "max_steps": 100,
        "save_steps": 100,
        "total_batch_size": 8,
        "per_device_train_batch_size": 8,
    }
    for name, replay in (("with", (f"{chats}=0.75",)), ("without", ())):
        pretrain(base, [corpus], tmp_path / name, settings=small(replay=replay, **shared))
    kept, lost = (chat_measures(tmp_path / name, TALK, limit=20) for name in ("with", "without"))
    assert (kept["chat_ended"], kept["chat_template_kept"]) == (1, 1)
    assert lost["chat_ended"] < 0.5
    assert kept["chat_bits_per_byte"] < 0.5 < lost["chat_bits_per_byte"]
