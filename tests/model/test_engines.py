"""Engines: what they answer is what a plain forward pass says, whatever the batch; labels as trees; where answers end."""

import random
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from darumeru.engines import EngineOptions, engine_class, open_engine
from darumeru.engines.base import finish, label_logprobs, label_tree
from darumeru.engines.hf.batches import shared_prefixes
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request, Sampling
from support.engines import collect, naive, open_hf, some_requests

FLOAT32 = EngineOptions(dtype="float32", device="cpu")


def test_hf_agrees_with_plain_forward_passes(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    eos = AutoTokenizer.from_pretrained(tiny_base).eos_token_id
    requests = some_requests()
    with open_hf(tiny_base) as engine:
        found = collect(engine, requests)
    assert set(found) == {r.id for r in requests}
    for request in requests:
        want, got = naive(model, request), found[request.id]
        assert got.logprobs == pytest.approx(want.logprobs, abs=1e-4), request.id
        if request.kind == "generate":
            tokens = want.tokens[: want.tokens.index(eos)] if eos in want.tokens else want.tokens
            assert got.tokens == tokens
            assert got.finish == ("stop" if eos in want.tokens else "length")


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_numbers_do_not_depend_on_batch_or_order(tiny_base: Path, batch_tokens: int) -> None:
    requests = some_requests(1)
    with open_hf(tiny_base) as engine:
        want = collect(engine, requests)
    shuffled = random.Random(3).sample(requests, len(requests))
    with open_hf(tiny_base, batch_tokens=batch_tokens) as engine:
        got = collect(engine, shuffled)
    for id_, answer in want.items():
        assert got[id_].logprobs == pytest.approx(answer.logprobs, abs=1e-4)
        assert (got[id_].tokens, got[id_].text, got[id_].finish) == (answer.tokens, answer.text, answer.finish)


def test_exact_numbers_repeat_bit_by_bit(tiny_base: Path) -> None:
    """Whatever the order in which the requests come."""
    requests = some_requests(2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    options = EngineOptions(dtype="float32", device="cpu", exact=True, model_args={"batch_tokens": 300})
    found = []
    for order in (requests, requests[::-1]):
        with open_engine("hf", tiny_base, tokenizer, frozenset({tokenizer.eos_token_id}), options) as engine:
            found.append(collect(engine, order))
    assert found[0] == found[1]
    done = tuple(r.id for r in requests[::3])
    with open_engine("hf", tiny_base, tokenizer, frozenset({tokenizer.eos_token_id}), options) as engine:
        rest = collect(engine, requests, done)
    assert rest == {id_: answer for id_, answer in found[0].items() if id_ not in done}, "also of a run that is resumed"


def test_done_requests_are_not_asked_again(tiny_base: Path) -> None:
    requests = some_requests()
    with open_hf(tiny_base, batch_tokens=300) as engine:
        everything = collect(engine, requests)
        done = tuple(r.id for r in requests[::2])
        rest = collect(engine, requests, done)
    assert set(rest) == {r.id for r in requests} - set(done)
    for id_, answer in rest.items():
        assert answer.logprobs == pytest.approx(everything[id_].logprobs, abs=1e-4)


def test_shared_beginnings_are_computed_once_and_change_nothing(tiny_base: Path) -> None:
    """Few-shot prompts: two groups of prompts with common beginnings, and one prompt alone."""
    rng = random.Random(5)
    requests = []
    for group, size in (("a", 5), ("b", 4), ("c", 1)):
        head = tuple(rng.randrange(6, 600) for _ in range(150))
        for i in range(size):
            tail = tuple(rng.randrange(6, 600) for _ in range(rng.choice([1, 9, 30])))
            requests.append(
                Request(f"{group}/{i}/0", "choose", head + tail, "", labels=(((20,), (9, 20)), ((21,), (9, 21))))
            )
    requests.append(Request("a/same/0", "choose", requests[0].prompt, "", labels=requests[0].labels))
    groups = shared_prefixes(requests)
    assert sorted((n, len(g)) for n, g in groups) == [(0, 1), (150, 4), (150, 6)]
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32).eval()
    with open_hf(tiny_base) as engine:
        found = collect(engine, requests)
        prompts = []
        real = engine.model.forward  # type: ignore[attr-defined]

        def spy(*args: Any, **inputs: Any) -> Any:
            prompts.append(tuple(inputs["input_ids"].shape))
            return real(*args, **inputs)

        engine.model.forward = spy  # type: ignore[attr-defined]
        collect(engine, requests)
    for request in requests:
        assert found[request.id].logprobs == pytest.approx(naive(model, request).logprobs, abs=1e-4), request.id
    assert prompts.count((1, 150)) == 2, "each common beginning is computed once"


def uneven_texts(tokenizer: Any) -> list[Request]:
    """Prompts and answers of very different lengths; some end with a text that the model writes."""
    rng = random.Random(5)
    requests = []
    for i, most in enumerate((3, 70, 20, 41, 16, 17, 33, 5)):
        prompt = tuple(rng.randrange(6, 600) for _ in range(rng.choice((3, 20, 60))))
        requests.append(Request(f"g/{i}/0", "generate", prompt, "", max_tokens=most))
    with_text = [replace(r, id=f"{r.id}+", until=(tokenizer.decode([231]), "zzz")) for r in requests]
    return requests + with_text


@pytest.mark.parametrize("sampling", [None, Sampling(0.9)])
def test_texts_that_have_ended_leave_their_batch_and_change_nothing(
    tiny_base: Path, sampling: Sampling | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    requests = [r.drawn(sampling, n) if sampling else r for n, r in enumerate(uneven_texts(tokenizer))]
    rows: list[int] = []
    with open_hf(tiny_base) as engine:
        inner: Any = engine
        real = inner.model.forward

        def spy(*args: Any, **inputs: Any) -> Any:
            rows.append(len(inputs["input_ids"]))
            return real(*args, **inputs)

        found = collect(engine, requests)
        alone = {a.id: a for r in requests for a in collect(engine, [r]).values()}
        monkeypatch.setattr(inner.model, "forward", spy)
        collect(engine, requests[:8])
        left, rows[:] = sum(rows), []
        monkeypatch.setattr(inner.forward, "leaves", lambda _: False)
        collect(engine, requests[:8])
        stayed = sum(rows)
        whole = collect(engine, requests)
    assert found == alone == whole
    assert left < 0.7 * stayed, "rows that are computed"
    assert any(a.finish == "length" and len(a.tokens) == 70 for a in found.values())


def test_a_closed_engine_holds_no_model(tiny_base: Path) -> None:
    """The next model of an arena is loaded where this one was, though somebody still knows the engine."""
    engine = open_hf(tiny_base)
    model = weakref.ref(engine.model)  # type: ignore[attr-defined]
    collect(engine, some_requests()[:8])
    engine.close()
    assert model() is None


def test_label_tree_shares_the_space_token() -> None:
    labels = (((32,), (216, 32)), ((33,), (216, 33)))
    assert label_tree(labels) == {(): (32, 33, 216), (216,): (32, 33)}
    logprobs = {(): {32: -5.0, 33: -6.0, 216: -0.1}, (216,): {32: -3.0, 33: -0.2}}
    # The shared space token must not be taken for the label: 1 wins through its spaced spelling.
    assert label_logprobs(labels, logprobs) == pytest.approx((-3.1, -0.3))


def test_one_token_labels_need_one_forward_pass() -> None:
    assert list(label_tree((((65,), (330,)), ((66,), (389,))))) == [()]


def test_where_an_answer_ends(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    eos = frozenset({tokenizer.eos_token_id})

    def answer(text: str, tail: tuple[int, ...] = (), until: tuple[str, ...] = ()) -> Answer:
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        request = Request("t/0/0", "generate", (1,), "", max_tokens=100, until=until)
        return finish(request, ids + tail, eos, tokenizer)

    plain = tuple(tokenizer("кот спит", add_special_tokens=False)["input_ids"])
    assert answer("кот спит", (tokenizer.eos_token_id, 77)) == Answer(
        "t/0/0", text="кот спит", tokens=plain, finish="stop"
    )
    assert answer("кот спит").finish == "length"
    cut = answer("кот спит\n\nQuery: ещё", until=("\n\n",))
    assert (cut.text, cut.tokens, cut.finish) == ("кот спит", plain, "stop")


def test_engine_is_an_lm_eval_model(tiny_base: Path) -> None:
    """The engine and lm-eval's own HFLM say the same of the same lm-eval requests, and our tasks run in stock lm-eval."""
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    stock = HFLM(pretrained=str(tiny_base), dtype="float32", device="cpu", batch_size=1)
    texts = [("Столица России —", " Москва"), ("Два плюс два", " равно четырём."), ("", " Текст без начала")]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(texts[:2])]
    rolling = [Instance("loglikelihood_rolling", {}, (pair[1],), i) for i, pair in enumerate(texts)]
    until = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    writing = [Instance("generate_until", {}, (pair[0], dict(until)), i) for i, pair in enumerate(texts[:2])]
    with open_hf(tiny_base) as engine:
        for (a, ga), (b, gb) in zip(engine.loglikelihood(asked), stock.loglikelihood(asked), strict=True):
            assert a == pytest.approx(b, abs=1e-3)
            assert ga == gb
        assert engine.loglikelihood_rolling(rolling) == pytest.approx(stock.loglikelihood_rolling(rolling), abs=1e-3)
        assert engine.generate_until(writing) == stock.generate_until(writing)

        from darumeru.task.suite import Catalogue

        catalogue = Catalogue()
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(catalogue.paths[-1]), include_defaults=False, metadata={"data": "mini"})
        for lm in (engine, stock):
            results = lm_eval.simple_evaluate(
                lm,
                tasks=["parus", "rucola", "multiq", "mmlu_ru_tenth"],
                task_manager=manager,
                limit=6,
                bootstrap_iters=0,
                num_fewshot=1,
            )
            assert results is not None
            assert 0.0 <= results["results"]["mmlu_ru_tenth"]["acc,none"] <= 1.0, "fewer metrics than its class has"
            assert 0.0 <= results["results"]["parus"]["acc,none"] <= 1.0
            assert "score,none" in results["results"]["multiq"]


def test_stock_lm_eval_cuts_what_is_too_long_on_the_left(tiny_base: Path) -> None:
    """As HFLM does; its context is a token longer, since the last token that is scored needs no place in it."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    context = 64
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    long = "Слово за слово, и текст стал длинным. " * 20
    asked = [Instance("loglikelihood", {}, (long + "Итог:", " да"), 0)]
    rolling = [Instance("loglikelihood_rolling", {}, (long,), 0)]
    writing = [Instance("generate_until", {}, (long, {"until": ["\n\n"], "max_gen_toks": 8}), 0)]
    options = EngineOptions(dtype="float32", device="cpu", context_len=context)
    args = {"pretrained": str(tiny_base), "dtype": "float32", "device": "cpu", "batch_size": 1}
    scoring, generating = HFLM(**args, max_length=context - 1), HFLM(**args, max_length=context)
    with open_engine("hf", tiny_base, tokenizer, frozenset({tokenizer.eos_token_id}), options) as engine:
        assert engine.loglikelihood(asked)[0][0] == pytest.approx(scoring.loglikelihood(asked)[0][0], abs=1e-3)
        want = scoring.loglikelihood_rolling(rolling)
        assert engine.loglikelihood_rolling(rolling) == pytest.approx(want, rel=1e-4)
        assert engine.generate_until(writing) == generating.generate_until(writing)
        with pytest.raises(DarumeruError, match=r"hf engine cannot answer: .* the context of the model holds 64"):
            engine.loglikelihood([Instance("loglikelihood", {}, ("Итог:", long), 0)])


def test_a_chat_template_has_written_bos_itself(tiny_chat: Path) -> None:
    """Of a tokenizer that puts BOS before every text, as Llama's does."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    stock = HFLM(pretrained=str(tiny_chat), tokenizer=tokenizer, dtype="float32", device="cpu", batch_size=1)
    with open_engine("hf", tiny_chat, tokenizer, frozenset({tokenizer.eos_token_id}), FLOAT32) as engine:
        for text in (engine.apply_chat_template([{"role": "user", "content": "Кто там?"}]), "Кто там?"):
            asked = [Instance("loglikelihood", {}, (text, "Кот"), 0)]
            writing = [Instance("generate_until", {}, (text, {"until": ["\n\n"], "max_gen_toks": 8}), 0)]
            assert engine.loglikelihood(asked)[0][0] == pytest.approx(stock.loglikelihood(asked)[0][0], abs=1e-3)
            assert engine.generate_until(writing) == stock.generate_until(writing)


def test_unknown_engine_and_arguments(tiny_base: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown engine 'vlm'\. Did you mean 'vllm'\?"):
        engine_class("vlm")
    with pytest.raises(UserError, match="Unknown --model-args key for the hf engine 'batch_token'"):
        open_hf(tiny_base, batch_token=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with pytest.raises(UserError, match=r"no GPU.*--device cpu"):
        open_engine("hf", tiny_base, tokenizer, frozenset({1}), EngineOptions(device="cuda"))
