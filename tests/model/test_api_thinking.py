"""Models that think behind a server: the same tokens as from raw prompts, or marked; reasoning alone is no answer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import darumeru
from darumeru.errors import UserError
from darumeru.record.run import Run
from support.standin import continuation, standing_in
from support.thinking_server import ThinkingStandIn, thinking_tokenizer

Serve = Callable[..., ThinkingStandIn]


@pytest.fixture(scope="module")
def model(tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and tokenizer of a model that thinks."""
    return thinking_tokenizer(tiny_chat, tmp_path_factory.mktemp("models") / "thinker")


@pytest.fixture
def serve(model: Path) -> Iterator[Serve]:
    """Start servers of that model."""
    running = []

    def start(**like: Any) -> ThinkingStandIn:
        context = standing_in(ThinkingStandIn(AutoTokenizer.from_pretrained(model), models=(model.name,), **like))
        stand_in: Any = context.__enter__()
        stand_in.armed = True
        running.append(context)
        return stand_in

    yield start
    for context in running:
        context.__exit__(None, None, None)


def evaluate(server: ThinkingStandIn, model: Path, output: Path, *tasks: str, **settings: Any) -> Run:
    return darumeru.evaluate(
        model,
        data="mini",
        tasks=tasks,
        engine="api",
        base_url=server.url,
        output=output,
        limit=3,
        model_args={"retries": 0},
        **settings,
    )


def answers(run: Run, task: str) -> list[dict[str, Any]]:
    return [r["answer"].to_json() for sample in run.samples(task) for r in sample["requests"]]


def stated(run: Run, task: str, *keys: str) -> list[list[Any]]:
    return [[answer.get(key) for key in keys] for answer in answers(run, task)]


@pytest.fixture(scope="module")
def raw(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the model says to raw prompts with thinking on."""
    with standing_in(ThinkingStandIn(AutoTokenizer.from_pretrained(model), models=(model.name,))) as server:
        folder = tmp_path_factory.mktemp("raw")
        return evaluate(server, model, folder, "cp_sent_ru", "rucola", thinking="on", thinking_budget=40)


WHOLE = ("text", "tokens", "finish", "thought", "thought_tokens")


def test_thoughts_over_raw_prompts_are_exact_for_texts_and_choices(raw: Run, model: Path) -> None:
    run = raw
    assert all(
        thought.startswith("так и") for task in ("cp_sent_ru", "rucola") for [thought] in stated(run, task, "thought")
    )
    assert all(text.startswith("вот") for [text] in stated(run, "cp_sent_ru", "text"))
    assert stated(run, "cp_sent_ru", "finish", "approximate") == [["stop", None]] * 3
    tokenizer = AutoTokenizer.from_pretrained(model)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for sample in run.samples("rucola"):
        [request] = sample["requests"]
        prompt = [*encode(request.prompt), *request.answer.thought_tokens]
        behind = encode("</think>" + request.after_thought.removeprefix("</think>"))[1:]
        for label, logprob in zip(("0", "1"), request.answer.logprobs, strict=True):
            ways = [encode(":" + spelled)[1:] for spelled in (label, f" {label}")]
            wanted = max(sum(continuation([*prompt, *behind], way)) for way in ways)
            assert logprob == pytest.approx(wanted, abs=1e-6)


def test_a_server_that_takes_texts_only_says_the_same(raw: Run, serve: Serve, model: Path, tmp_path: Path) -> None:
    server = serve(tokens=False)
    run = evaluate(server, model, tmp_path, "cp_sent_ru", thinking="on", thinking_budget=40)
    assert all(isinstance(body["prompt"], str) for body in server.bodies[-6:])
    assert stated(run, "cp_sent_ru", *WHOLE, "approximate") == stated(raw, "cp_sent_ru", *WHOLE, "approximate")


def test_what_a_server_cannot_answer_is_refused_before_anything_is_thought(
    serve: Serve, model: Path, tmp_path: Path
) -> None:
    server = serve(tokens=False)
    with pytest.raises(UserError, match="does not give the exact log-probabilities of labels"):
        evaluate(server, model, tmp_path, "cp_sent_ru", "rucola", thinking="on", thinking_budget=40)
    assert not [body for body in server.bodies if body["max_tokens"] == 40]


@pytest.mark.parametrize("told", ["reasoning", "content"])
def test_a_server_that_only_chats_and_tells_tokens_says_the_same(
    told: str, raw: Run, serve: Serve, model: Path, tmp_path: Path
) -> None:
    settings = {"thinking": "on", "thinking_budget": 40}
    server = serve(chat_only=True, told=told)
    chat = evaluate(server, model, tmp_path / "chat", "cp_sent_ru", **settings)
    assert stated(chat, "cp_sent_ru", *WHOLE, "approximate") == stated(raw, "cp_sent_ru", *WHOLE, "approximate")
    asked = [body for body in server.bodies if body["max_tokens"] > 1]
    assert len(asked) == 3  # thought and answer from one call
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True} for body in asked)


@pytest.mark.parametrize("told", ["reasoning", "reasoning_content", "content"])
def test_a_server_that_tells_texts_alone_is_marked(
    told: str, raw: Run, serve: Serve, model: Path, tmp_path: Path
) -> None:
    settings = {"thinking": "on", "thinking_budget": 40}
    like = {"chat_only": True, "extras": False, "told": told}
    chat = evaluate(serve(**like), model, tmp_path / "chat", "cp_sent_ru", approximate=True, **settings)
    assert stated(chat, "cp_sent_ru", "text", "thought") == stated(raw, "cp_sent_ru", "text", "thought")
    assert stated(chat, "cp_sent_ru", "approximate") == [[True]] * 3


@pytest.mark.parametrize(
    "like", [{}, {"chat_only": True}, {"chat_only": True, "extras": False}, {"chat_only": True, "told": "content"}]
)
def test_reasoning_alone_is_an_unfinished_answer(
    like: dict[str, Any], serve: Serve, model: Path, tmp_path: Path
) -> None:
    loose = {"approximate": True} if "extras" in like else {}
    run = evaluate(serve(**like), model, tmp_path, "cp_sent_ru", thinking="on", thinking_budget=2, **loose)
    assert stated(run, "cp_sent_ru", "text", "tokens", "unfinished") == [[None, None, True]] * 3
    result = run.scores["tasks"]["cp_sent_ru"]
    assert (result["unfinished_thoughts"], result["finished_documents"], result["empty_answers"]) == (3, 0, 3)
    assert result["thought_tokens"] == 6


def test_thinking_is_off_where_a_server_renders_prompts(serve: Serve, model: Path, tmp_path: Path) -> None:
    server = serve(chat_only=True)
    run = evaluate(server, model, tmp_path, "cp_sent_ru")
    asked = [body for body in server.bodies if body["max_tokens"] > 1]
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in asked)
    assert all(text.startswith("вот") for [text] in stated(run, "cp_sent_ru", "text"))
    assert stated(run, "cp_sent_ru", "thought", "approximate") == [[None, None]] * 3
    raw = evaluate(serve(), model, tmp_path / "raw", "cp_sent_ru")
    assert stated(run, "cp_sent_ru", *WHOLE) == stated(raw, "cp_sent_ru", *WHOLE)


def test_a_server_that_cannot_be_told_to_think_is_refused_or_marked(serve: Serve, model: Path, tmp_path: Path) -> None:
    # It knows no arguments of the template, and thinks, because that is the template's default.
    like = {"chat_only": True, "extras": False, "strict": True}
    for thinking in ("off", "on"):
        with pytest.raises(
            UserError, match=rf"does not take arguments of its chat template \(enable_thinking={thinking == 'on'}\)"
        ):
            evaluate(serve(**like), model, tmp_path, "cp_sent_ru", thinking=thinking)
    # It takes them and does nothing with them: the prompt's tokens show it.
    with pytest.raises(UserError, match="it writes prompts in another way"):
        evaluate(serve(chat_only=True, takes_args=False), model, tmp_path, "cp_sent_ru")
    run = evaluate(serve(**like), model, tmp_path, "cp_sent_ru", approximate=True)
    [[text, thought], *_] = stated(run, "cp_sent_ru", "text", "thought")
    assert text.startswith("вот")
    assert "так и" in thought
    assert run.scores["tasks"]["cp_sent_ru"]["thought_tokens"] > 0


def test_choices_of_a_server_that_only_chats_are_read_behind_the_thought(
    serve: Serve, model: Path, tmp_path: Path
) -> None:
    like = {"chat_only": True, "extras": False}
    run = evaluate(serve(**like), model, tmp_path, "rucola", thinking="on", thinking_budget=40, approximate=True)
    assert all("так и" in thought for [thought] in stated(run, "rucola", "thought"))
    assert all(len(logprobs) == 2 for [logprobs] in stated(run, "rucola", "logprobs"))
    cut = evaluate(serve(**like), model, tmp_path, "rucola", thinking="on", thinking_budget=2, approximate=True)
    assert stated(cut, "rucola", "logprobs", "unfinished") == [[None, True]] * 3
