"""Prompts that begin alike are in memory once, and have exactly the tokens, the order and the fingerprint of whole prompts."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from darumeru.engines.hf.batches import shared_prefixes
from darumeru.inference import requests_sha256
from darumeru.inference.prompt import Limits, Prompter
from darumeru.requests import Message, PackedTokens, Query, Request

PIECES = [
    *"абвгдеж abc  \n\n.,:!?0123456789é\u0301ё😀🇷🇺ﬁ\t—«»ＡЪ",
    "Query:",
    "\n\n",
    "Response: ",
    " Ответ: А",
    " слово",
    " word",
]
MARKS = ["<s>", "</s>", "<|end|>", "<|im_end|>", " <|im_start|>"]


def jumble(draw: random.Random, length: int) -> str:
    return "".join(draw.choice(PIECES + MARKS) for _ in range(length))


def shot(number: int) -> list[Message]:
    return [
        {"role": "user", "content": f"Вопрос номер {number}: " + "сколько стоит слон? " * 6},
        {"role": "assistant", "content": f"Ответ: {number}"},
    ]


def asked(documents: int) -> list[tuple[str, Query, list[list[Message]]]]:
    shots = [shot(n) for n in range(5)]
    questions = [[{"role": "user", "content": f"{n * n} слонов\n— это много?"}] for n in range(documents)]
    return [(f"t/{n}/0", Query("choose", q, options=("1", "2")), shots) for n, q in enumerate(questions)]


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("tiny_base", ""),
        ("tiny_chat", ""),
        ("shared", "tokenizers/mistral-7b-v0.1"),
        ("tokenizers_folder", "qwen3"),
        ("tokenizers_folder", "llama3"),
    ],
)
def test_tokens_are_those_of_the_whole_text(fixture: str, name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(fixture) / name)
    prompter = Prompter(tokenizer, "foundation", Limits())
    draw, joined = random.Random(0), 0
    for number in range(25):
        # The beginning ends anywhere: in a word, in a number, before white space, inside a character of two code points.
        beginning = jumble(draw, draw.randrange(150, 300))
        texts = [beginning + jumble(draw, draw.randrange(40)) for _ in range(12)]
        for text, prompt in zip(texts, prompter.tokenize(texts, [(str(number),)] * 12), strict=True):
            assert "".join(prompt.text) == text
            assert list(prompt.tokens.tokens()) == prompter.encode([text])[0]
            joined += bool(prompt.tokens.head)
    assert joined > 200, "nearly all of 300 prompts share their beginning"


def test_texts_that_do_not_begin_alike_after_all(tiny_base: Path) -> None:
    prompter = Prompter(AutoTokenizer.from_pretrained(tiny_base), "foundation", Limits())
    texts = ["слово " * 60 + "один", "слово " * 60 + "два", "слово " * 40 + "три", "иначе", "слово " * 60 + "пять"]
    prompts = prompter.tokenize(texts, [("a",)] * len(texts))
    assert [list(p.tokens.tokens()) for p in prompts] == prompter.encode(texts)


def test_a_tokenizer_that_weighs_the_whole_text_gets_it_whole() -> None:
    # Unigram chooses the most probable pieces of a word of any length: here of all the text.
    vocabulary = [("<unk>", -20.0), ("а", -3.0), ("б", -3.0), ("аб", -5.0), ("ба", -4.0), (" ", -1.0)]
    inner = Tokenizer(models.Unigram(vocabulary, 0, False))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", split=False)
    prompter = Prompter(PreTrainedTokenizerFast(tokenizer_object=inner), "foundation", Limits())
    texts = ["абба" * 80 + end for end in ("а", "б", "аб", "ба")]
    prompts = prompter.tokenize(texts, [("a",)] * 4)
    assert [list(p.tokens.tokens()) for p in prompts] == prompter.encode(texts)
    assert not any(p.tokens.head for p in prompts)


@pytest.mark.parametrize("mode", ["instruct", "foundation"])
def test_requests_share_their_examples(tiny_chat: Path, mode: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    requests = Prompter(tokenizer, mode, Limits(10_000)).requests(asked(40))
    heads = {id(r.packed.head) for r in requests if r.packed.head}
    assert len(heads) == 1
    assert len(requests[5].packed.tail) < 4 * requests[5].prompt_tokens / 2
    for number, r in enumerate(requests):
        assert f"{number * number} слонов" in r.text
        assert list(r.prompt) == tokenizer(r.text, add_special_tokens=mode == "foundation")["input_ids"]
        assert r.prompt_tokens == len(r.prompt)


def test_examples_that_do_not_fit_are_left_out_of_shared_prompts_too(tiny_chat: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    whole = Prompter(tokenizer, "instruct", Limits(10_000)).requests(asked(1))[0].prompt_tokens
    for share in (1, 2, 4):
        requests = Prompter(tokenizer, "instruct", Limits((whole - 1) // share)).requests(asked(12))
        for r in requests:
            assert list(r.prompt) == tokenizer(r.text, add_special_tokens=False)["input_ids"]
            assert r.text.count("Вопрос номер") == r.num_fewshot < 5


def test_the_fingerprint_is_that_of_all_requests_as_one_list(tiny_chat: Path) -> None:
    requests = Prompter(AutoTokenizer.from_pretrained(tiny_chat), "instruct", Limits(10_000)).requests(asked(9))
    requests.append(Request("g/ё/0", "generate", (70_000, 3), "x", max_tokens=8, until=("\n\n",)))
    rows = [[r.id, r.kind, r.prompt, r.labels, r.continuations, r.max_tokens, r.until] for r in requests]
    whole = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(", ", ": "))
    assert requests_sha256(requests) == hashlib.sha256(whole.encode()).hexdigest()
    assert requests_sha256([]) == hashlib.sha256(b"[]").hexdigest()


def test_packed_tokens_compare_as_tuples() -> None:
    draw = random.Random(0)
    heads = [(), (1, 2), (1, 2, 3), (1, 70_000), (300,)]
    packed_heads = [PackedTokens.of(h).tail for h in heads]
    made = []
    for _ in range(300):
        n = draw.randrange(len(heads))
        tail = tuple(draw.choice((0, 1, 2, 3, 255, 256, 70_000)) for _ in range(draw.randrange(4)))
        made.append((heads[n] + tail, PackedTokens.of(tail, packed_heads[n])))
    assert [p.tokens() for _, p in sorted(made, key=lambda m: m[1])] == sorted(t for t, _ in made)
    for a, packed_a in made[:40]:
        for b, packed_b in made[:40]:
            assert (packed_a == packed_b) == (a == b)
            assert a != b or hash(packed_a) == hash(packed_b)
            alike = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            assert packed_a.common(packed_b) == alike


def test_requests_are_grouped_by_their_prefixes() -> None:
    def request(n: int, prompt: tuple[int, ...]) -> Request:
        return Request(f"t/{n}/0", "choose", prompt, "", labels=(((5,),), ((6,),)))

    long, other = tuple(range(100)), tuple(range(1000, 1100))
    requests = [request(n, (long, other)[n % 2] + (n,)) for n in range(6)] + [request(9, (7,))]
    groups = shared_prefixes(requests)
    assert [(shared, sorted(r.id for r in group)) for shared, group in groups] == [
        (100, ["t/0/0", "t/2/0", "t/4/0"]),
        (100, ["t/1/0", "t/3/0", "t/5/0"]),
        (0, ["t/9/0"]),
    ]
