"""The api engine against a stand-in server: exact numbers or a refusal, patience, resuming, a sentence for each fault."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

import darumeru
from darumeru.cli import app
from darumeru.engines import EngineOptions, Server, open_engine
from darumeru.engines.api.client import Patience, retry_after, server_url
from darumeru.engines.base import Engine
from darumeru.errors import DarumeruError, UserError
from darumeru.record.run import Journal, Run
from darumeru.requests import Answer, Request, Sampling
from support.standin import StandIn, check, logprobs, some_requests, standing_in

QUICK = {"backoff": 0.01}


@pytest.fixture
def serve(tiny_chat: Path) -> Iterator[Callable[..., StandIn]]:
    """Start stand-ins that serve the tiny instruct model's tokenizer."""
    with_tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    running = []

    def start(**like: Any) -> StandIn:
        context = standing_in(StandIn(with_tokenizer, **like))
        stand_in = context.__enter__()
        running.append(context)
        return stand_in

    yield start
    for context in running:
        context.__exit__(None, None, None)


def open_api(stand_in: StandIn, model: Path, approximate: bool = False, **model_args: Any) -> Engine:
    tokenizer = AutoTokenizer.from_pretrained(model)
    server = Server(stand_in.url, stand_in.models[0], approximate=approximate)
    options = EngineOptions(max_len=300, model_args=QUICK | model_args, server=server)
    engine = open_engine("api", model, tokenizer, frozenset({tokenizer.eos_token_id}), options)
    stand_in.armed = True
    return engine


def collect(engine: Engine, requests: list[Request]) -> dict[str, Answer]:
    return {a.id: a for batch in engine.answers(requests) for a in batch}


# -- what is exact ----------------------------------------------------------------------------------------------------


def test_a_server_like_vllms_answers_everything_exactly(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    requests = some_requests()
    stand_in = serve()
    with open_api(stand_in, tiny_chat) as engine:
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)
        able = engine.describe()["abilities"]
    assert (able["labels"], able["continuations"], able["generated"]) == (
        "logprob_token_ids", "prompt_logprobs", "token_ids",
    )  # fmt: skip
    assert all(b["temperature"] == 0 for b in stand_in.bodies)
    assert all(b["repetition_penalty"] == 1.0 for b in stand_in.bodies), "the server's defaults are overruled"


def test_a_server_that_repeats_prompts_scores_exactly_but_counts_no_tokens(
    serve: Callable[..., StandIn], tiny_chat: Path
) -> None:
    requests = some_requests("crl")
    with open_api(serve(extras=False, strict=True, refusal=500), tiny_chat) as engine:
        assert engine.describe()["abilities"]["continuations"] == "echo"
    with open_api(serve(extras=False, strict=True, most=5), tiny_chat) as engine:
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)
        with pytest.raises(UserError, match=r"does not return the ids of the tokens.*--approximate"):
            collect(engine, some_requests("g"))


def test_long_articles_are_ranked_through_the_prefix_cache(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    """Whichever way is cheaper, the numbers are the same."""
    rng = random.Random(1)
    article = tuple(rng.randrange(6, 600) for _ in range(1500))
    sentences = tuple(tuple(rng.randrange(6, 600) for _ in range(3)) for _ in range(8))
    for prompt, way in ((article, "logprob_token_ids"), (article[:100], "prompt_logprobs")):
        request = Request("r/0/0", "rank", prompt, "", continuations=sentences)
        stand_in = serve()
        with open_api(stand_in, tiny_chat) as engine:
            check(collect(engine, [request]), [request], -1)
        assert all(way in b for b in stand_in.bodies)


def test_closing_ends_what_is_under_way(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve(delay=0.2)
    engine = open_api(stand_in, tiny_chat, concurrency=1)
    answers = engine.answers(some_requests("g", 10))
    next(answers)
    engine.close()
    with pytest.raises(DarumeruError, match="no longer waited for"):
        list(answers)


def test_greedy_continuations_are_recognised(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    best = tuple(int(i) for i in [logprobs([9, 9]).argmax()])
    worst = tuple(int(i) for i in [logprobs([9, 9]).argmin()])
    request = Request("l/0/0", "likelihood", (9, 9), "", continuations=(best, worst))
    for like in ({}, {"extras": False}):
        with open_api(serve(**like), tiny_chat) as engine:
            assert collect(engine, [request])["l/0/0"].greedy == (True, False)


def test_more_labels_than_one_call_takes(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    request = Request("c/0/0", "choose", (9, 10, 11), "", labels=tuple(((t,),) for t in range(6, 306)))
    stand_in = serve()
    with open_api(stand_in, tiny_chat) as engine:
        check(collect(engine, [request]), [request], -1)
    first, *others = [len(b["logprob_token_ids"]) for b in stand_in.bodies]
    assert (first, sorted(others)) == (128, [44, 128])  # the others are under way at once, in any order


# -- what is not ------------------------------------------------------------------------------------------------------


def test_labels_out_of_the_most_probable_tokens_are_refused_or_marked(
    serve: Callable[..., StandIn], tiny_chat: Path
) -> None:
    top = [int(t) for t in logprobs([9, 10]).argsort()[::-1][:30]]
    request = Request("c/0/0", "choose", (9, 10), "", labels=(((top[1],),), ((top[29],),)))
    like = {"extras": False, "echo": False}
    with (
        open_api(serve(**like), tiny_chat) as engine,
        pytest.raises(UserError, match=r"exact log-probabilities of labels"),
    ):
        collect(engine, [request])
    with open_api(serve(**like), tiny_chat, approximate=True) as engine:
        answer = collect(engine, [request])["c/0/0"]
        with pytest.raises(UserError, match="cannot rank or weigh sentences, not even approximately"):
            collect(engine, some_requests("r"))
    row = logprobs([9, 10])
    assert answer.approximate
    assert answer.logprobs[0] == pytest.approx(row[top[1]])
    assert row[top[29]] <= answer.logprobs[1] <= row[top[19]], "a bound for a label that was not among them"


def test_a_server_without_token_ids_is_marked_in_the_record(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    like = {"extras": False, "echo": False, "tokens": False, "most": 5, "models": (tiny_chat.name,)}
    stand_in = serve(**like)
    with pytest.raises(UserError, match="does not return the ids"):
        evaluate(stand_in, tiny_chat, tmp_path, tasks=["cp_sent_ru"])
    run = evaluate(serve(**like), tiny_chat, tmp_path, tasks=["cp_sent_ru", "rwsd"], approximate=True)
    assert run.header["engine"]["approximate"] is True
    assert run.scores["tasks"]["cp_sent_ru"]["approximate_answers"] == 3
    assert run.scores["tasks"]["rwsd"]["approximate_answers"] == 3
    out = CliRunner().invoke(app, ["show", str(run.path)]).output
    assert "APPROXIMATE" in out
    assert run.scores["engine"]["abilities"]["prompts"] == "text"


def test_a_server_that_only_chats(serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path) -> None:
    """With token ids (vLLM) it generates exactly; choices are refused; without ids all is approximate."""
    exact = serve(chat_only=True)
    run = evaluate(exact, tiny_chat, tmp_path, tasks=["cp_sent_ru"])
    assert run.scores["tasks"]["cp_sent_ru"]["approximate_answers"] == 0
    assert run.scores["engine"]["abilities"]["endpoint"] == "chat/completions"
    whole = evaluate(serve(), tiny_chat, tmp_path, tasks=["cp_sent_ru"])
    assert [s["requests"][0]["answer"] for s in run.samples("cp_sent_ru")] == [
        s["requests"][0]["answer"] for s in whole.samples("cp_sent_ru")
    ]
    with pytest.raises(UserError, match=r"only chats.*does not give the exact log-probabilities of labels"):
        evaluate(serve(chat_only=True), tiny_chat, tmp_path, tasks=["rucola"])
    loose = serve(chat_only=True, extras=False)
    with pytest.raises(UserError, match="does not return the ids"):
        evaluate(loose, tiny_chat, tmp_path, tasks=["cp_sent_ru"])
    done = evaluate(loose, tiny_chat, tmp_path, tasks=["cp_sent_ru", "rucola"], approximate=True)
    assert all(t["approximate_answers"] == 3 for t in done.scores["tasks"].values())


def test_a_foundation_model_cannot_be_asked_by_chat(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"only chats.*is no conversation"):
        evaluate(
            serve(chat_only=True, extras=False), tiny_base_of(tiny_chat, tmp_path), tmp_path, tasks=["cp_sent_ru"],
            mode="foundation", approximate=True,
        )  # fmt: skip


def tiny_base_of(model: Path, folder: Path) -> Path:
    """The same tokenizer without a chat template, and no weights at all."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "base")
    (folder / "base" / "config.json").write_text((model / "config.json").read_text())
    return folder / "base"


# -- a run ------------------------------------------------------------------------------------------------------------


def evaluate(stand_in: StandIn, model: Path, output: Path, tasks: list[str], **settings: Any) -> Run:
    settings = {"model_args": QUICK, "served_model": stand_in.models[0], "limit": 3} | settings
    return darumeru.evaluate(
        model, data="mini", tasks=tasks, engine="api", base_url=stand_in.url, output=output, **settings
    )


def test_weights_need_not_be_here_and_the_record_says_who_answered(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    folder = tmp_path / "tokenizer-only"
    folder.mkdir()
    for file in tiny_chat.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    stand_in = serve(key="sk-very-secret", models=("other", "Tiny Chat v2"))
    run = evaluate(
        stand_in,
        folder,
        tmp_path / "runs",
        ["rwsd", "cp_sent_ru"],
        served_model="Tiny Chat v2",
        api_key_env="MY_KEY",  # pragma: allowlist secret
    )
    assert run.complete
    header = run.header
    assert header["model"]["weights_sha256"] is None
    assert header["engine"]["base_url"] == stand_in.url
    assert header["engine"]["served_model"] == "Tiny Chat v2"
    assert run.scores["engine"]["served_model"] == "Tiny Chat v2"
    assert all("sk-very-secret" not in f.read_text(encoding="utf-8") for f in run.path.rglob("*.json*"))


def test_the_served_name_may_be_the_path_as_given(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    assert evaluate(serve(models=(str(tiny_chat),)), tiny_chat, tmp_path, ["rwsd"], served_model=None).complete


def test_a_server_that_dies_half_way_then_the_same_command(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    stand_in = serve()
    tasks = ["rwsd", "sum_extractive", "cp_sent_ru"]
    patience = QUICK | {"retries": 2, "concurrency": 3}
    stand_in.armed, stand_in.dies_after = True, 20
    with pytest.raises(DarumeruError, match=r"broke the connection off.*asked 3 times.*same command resumes") as error:
        evaluate(stand_in, tiny_chat, tmp_path / "a", tasks, model_args=patience)
    assert error.value.exit_code == 1
    path = next((tmp_path / "a").iterdir())
    stored = set(Journal(path / "journal.jsonl").answers)
    assert stored
    stand_in.dies_after, stand_in.armed = None, False
    done = evaluate(stand_in, tiny_chat, tmp_path / "a", tasks, model_args=patience)
    assert done.path == path
    whole = evaluate(stand_in, tiny_chat, tmp_path / "b", tasks, model_args=patience)
    for task in tasks:
        assert list(done.samples(task)) == list(whole.samples(task))


def test_concurrency_is_bounded_and_used(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve(delay=0.02)
    requests = some_requests("rg", 6)
    with open_api(stand_in, tiny_chat, concurrency=4) as engine:
        stand_in.widest = 0
        collect(engine, requests)
    assert stand_in.widest == 4


def test_answers_come_one_by_one(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve(delay=0.05)
    with open_api(stand_in, tiny_chat, concurrency=1) as engine:
        first = next(iter(engine.answers(some_requests("g", 10))))
        assert len(first) < 3
        calls = stand_in.calls
        time.sleep(0.2)
    assert stand_in.calls <= calls + 2, "what nobody waits for is not asked"


def test_done_requests_are_not_asked_again(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve()
    requests = some_requests("g")
    with open_api(stand_in, tiny_chat) as engine:
        found = [a.id for batch in engine.answers(requests, {requests[0].id}) for a in batch]
    assert sorted(found) == sorted(r.id for r in requests[1:])
    assert stand_in.calls == 3


# -- patience ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_servers_are_asked_again(serve: Callable[..., StandIn], tiny_chat: Path, status: int) -> None:
    stand_in = serve()
    requests = some_requests("c")
    with open_api(stand_in, tiny_chat) as engine:
        stand_in.faults = [(status, {}, "<html>Bad gateway</html>")] * 3
        check(collect(engine, requests), requests, -1)


@pytest.mark.parametrize("cuts", [2, 3])
def test_a_server_that_breaks_connections_off_is_asked_again_from_the_first_call_on(
    serve: Callable[..., StandIn], tiny_chat: Path, cuts: int
) -> None:
    requests = some_requests("c")
    with open_api(serve(armed=True, cuts_each=cuts), tiny_chat, concurrency=1) as engine:
        check(collect(engine, requests), requests, -1)


def test_retry_after_is_honoured(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve()
    with open_api(stand_in, tiny_chat) as engine:
        stand_in.faults = [(429, {"Retry-After": "0.6"}, "slow down")]
        began = time.monotonic()
        collect(engine, some_requests("g", 1))
        assert time.monotonic() - began >= 0.6
        stand_in.faults = [(429, {"Retry-After": "86400"}, "slow down")]
        with pytest.raises(DarumeruError, match="asks for a pause of 86400 s"):
            collect(engine, some_requests("g", 1))


def test_retry_after_may_be_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after(soon) or 0) <= 30
    assert retry_after("tomorrow") is None
    assert retry_after(None) is None


def test_patience_ends(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve()
    with open_api(stand_in, tiny_chat, retries=2) as engine:
        stand_in.faults = [(503, {}, '{"error": {"message": "overloaded"}}')] * 50
        with pytest.raises(DarumeruError, match=r"answers 503: overloaded \(asked 3 times"):
            collect(engine, some_requests("g", 1))


def test_a_server_that_never_answers(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve(delay=1.0)
    with (
        open_api(stand_in, tiny_chat, retries=1, timeout=0.3) as engine,
        pytest.raises(DarumeruError, match=r"did not answer within 0\.3 s, .*--model-args timeout="),
    ):
        collect(engine, some_requests("g", 1))


# -- faults -----------------------------------------------------------------------------------------------------------


def test_one_refused_request_fails_its_task_only(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    stand_in = serve()
    requests = some_requests("g", 3)
    with open_api(stand_in, tiny_chat) as engine:
        stand_in.refuses = len(requests[0].prompt)
        found = collect(engine, requests)
    assert "I do not like this one" in found["g/0/0"].error
    assert any(not a.error for a in found.values())
    many = [Request(f"g/{i}/0", "generate", requests[0].prompt, "", max_tokens=1) for i in range(40)]
    with open_api(stand_in, tiny_chat) as engine, pytest.raises(DarumeruError, match="refused 20 requests"):
        collect(engine, many)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((200, {}, "<html>Log in</html>"), r"answers with a web page \(HTML\)"),
        ((200, {}, "[1]"), "something that is no JSON object"),
        ((200, {}, '{"choices": []}'), "without a choice"),
        ((200, {}, '{"choices": [{"text": ""}]}'), "left log-probabilities out"),
        ((302, {"Location": "http://example.org"}, ""), "sends us elsewhere"),
        ((401, {}, "{}"), "wants an API key"),
        ((400, {}, '{"error": {"message": "maximum context length is 10"}}'), "Give a smaller --max-prompt-len"),
    ],
)
def test_odd_answers_half_way(
    serve: Callable[..., StandIn], tiny_chat: Path, fault: tuple[int, dict[str, str], str], message: str
) -> None:
    stand_in = serve()
    with open_api(stand_in, tiny_chat) as engine:
        stand_in.faults = [fault] * 50
        with pytest.raises(DarumeruError, match=message):
            collect(engine, some_requests("c", 1))


def test_drawn_answers_carry_their_settings_and_seed(
    serve: Callable[..., StandIn], tiny_chat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sampling = Sampling(0.7, top_p=0.9, top_k=5, min_p=0.1)
    greedy = Request("g/0/0", "generate", (7, 8), "", max_tokens=3)
    stand_in = serve()
    with open_api(stand_in, tiny_chat, concurrency=1) as engine:
        collect(engine, [replace(greedy, sampling=sampling, seed=41), replace(greedy, id="g/1/0")])
    of_seed = {body.get("seed"): body for body in stand_in.bodies}
    told = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 41}
    assert told.items() <= of_seed[41].items()
    assert {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}.items() <= of_seed[None].items()
    assert not caplog.records
    plain = serve(extras=False, strict=False)
    with open_api(plain, tiny_chat, approximate=True) as engine:
        with pytest.raises(UserError, match="not known to take top_k"):
            collect(engine, [replace(greedy, sampling=sampling)])
        collect(engine, [replace(greedy, sampling=Sampling(0.7, top_p=0.9), seed=41)])
    assert {"temperature": 0.7, "top_p": 0.9, "seed": 41}.items() <= plain.bodies[-1].items()
    assert not {"top_k", "min_p"} & plain.bodies[-1].keys()
    assert "may ignore it" in caplog.text


def test_logits_are_not_taken_for_log_probabilities(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    stand_in = serve(shift=20.0)
    with open_api(stand_in, tiny_chat) as engine, pytest.raises(DarumeruError, match="--logprobs-mode"):
        collect(engine, some_requests("c", 1))


def call(*args: object, code: int) -> str:
    os.environ.pop("DARUMERU_DEBUG", None)
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("like", "args", "code", "message"),
    [
        ({}, ["--served-model", "big"], 2, "does not serve 'big'. It serves: 'tiny'. Give the right one with --served-model"),
        ({"models": ()}, [], 2, "It serves: nothing."),
        ({"html": True}, [], 2, "answers with a web page (HTML), so it is no OpenAI-compatible API"),
        ({"key": "k"}, [], 2, "wants an API key (status 401)"),
        ({"key": "k"}, ["--api-key-env", "WRONG_KEY"], 2, "refuses the API key in the environment variable 'WRONG_KEY'"),
        ({}, ["--api-key-env", "NO_SUCH_KEY"], 2, "the environment variable 'NO_SUCH_KEY' is not set or empty"),
        ({"context": 64}, [], 2, "The server's context is 64 tokens, and this run needs"),
        ({"context": None}, [], 2, "is too long for it: This model's maximum context length is 100 tokens."),
        ({}, ["--base-url", "http://127.0.0.1:9"], 1, "cannot be reached"),
        # pragma: allowlist nextline secret
        ({}, ["--base-url", "http://me:pw@127.0.0.1:9"], 2, "--base-url holds a user name, a password"),
        ({}, ["--base-url", "127.0.0.1:8000"], 2, "--base-url is no http(s) address"),
        ({}, ["--base-url", ""], 2, "--engine api needs the server's address"),
        ({}, ["--dtype", "float32"], 2, "--dtype 'float32' is the server's to decide"),
        ({}, ["--model-args", "threads=3"], 2, "Unknown --model-args key for the api engine 'threads'"),
        ({}, ["--model-args", "concurrency=0"], 2, "concurrency=0: a whole number of at least 1 is needed"),
        ({}, ["--model-args", "timeout=soon"], 2, "timeout=soon: a number of at least 0.001 is needed"),
        ({}, ["--engine", "hf"], 2, "--base-url belongs to a server: it needs --engine api"),
    ],
)  # fmt: skip
def test_start_up_faults(
    serve: Callable[..., StandIn],
    tiny_chat: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    like: dict[str, Any],
    args: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("WRONG_KEY", "sk-wrong-key")
    stand_in = serve(**like)
    out = call(
        "run", "--model", tiny_chat, "--data", "mini", "--tasks", "rucola", "--limit", 2, "--engine", "api",
        *([] if "--base-url" in args else ["--base-url", stand_in.url]), "--served-model", "tiny", "--output", tmp_path, *args,
        code=code,
    )  # fmt: skip
    assert message in out, out
    assert "sk-wrong-key" not in out
    assert "pw" not in out
    assert not list(tmp_path.rglob("manifest.json"))


def test_the_server_of_another_tokenizer_is_refused(
    serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path
) -> None:
    class Other:
        def __init__(self, tokenizer: Any, change: Callable[[list[int]], list[int]]) -> None:
            self.tokenizer, self.change = tokenizer, change

        def __getattr__(self, name: str) -> Any:
            return getattr(self.tokenizer, name)

        def __call__(self, text: str, **more: Any) -> Any:
            return {"input_ids": self.change(self.tokenizer(text, **more)["input_ids"])}

    for extras in (True, False):
        stand_in = serve(extras=extras)
        plain = stand_in.tokenizer
        stand_in.tokenizer = Other(plain, lambda ids: ids[1:])
        with pytest.raises(UserError, match="has another tokenizer than --model"):
            open_api(stand_in, tiny_chat)
    stand_in = serve()
    stand_in.tokenizer = Other(plain, lambda ids: ids[::-1])
    with pytest.raises(UserError, match="other ones"):
        open_api(stand_in, tiny_chat)


def test_a_base_url_without_v1_is_found(serve: Callable[..., StandIn], tiny_chat: Path, tmp_path: Path) -> None:
    stand_in = serve()
    stand_in.url = stand_in.url.removesuffix("/v1")
    run = evaluate(stand_in, tiny_chat, tmp_path, ["rwsd"])
    assert run.scores["engine"]["base_url"] == stand_in.url + "/v1"


def test_the_client_leaves_no_thread(serve: Callable[..., StandIn], tiny_chat: Path) -> None:
    with open_api(serve(), tiny_chat):
        assert any(t.name == "darumeru-api" for t in threading.enumerate())
    assert not any(t.name == "darumeru-api" for t in threading.enumerate())
    with pytest.raises(UserError):
        open_api(serve(context=10), tiny_chat)
    assert not any(t.name == "darumeru-api" for t in threading.enumerate())


def test_base_urls() -> None:
    assert server_url(" http://127.0.0.1:8000/v1/ ") == "http://127.0.0.1:8000/v1"
    for bad in ("ftp://x", "http://", "http://x:port", "http://[", "x"):
        with pytest.raises(UserError, match="no http"):
            server_url(bad)
    for secret in ("http://u@x", "http://x/v1?key=sk", "http://x/#sk"):
        with pytest.raises(UserError, match="the record states the URL") as error:
            server_url(secret)
        assert "sk" not in str(error.value)


def test_patience_of_nothing_is_the_default() -> None:
    assert Patience.of({}) == Patience()
    assert json.dumps(Patience.of({"concurrency": 2}).concurrency) == "2"
