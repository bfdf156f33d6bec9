"""Several servers of one model: shared out, failed over, taken back, and refused where they differ."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

import darumeru
from darumeru.cli import app
from darumeru.engines import EngineOptions, Server, open_engine
from darumeru.engines.base import Engine
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer
from support.standin import StandIn, check, some_requests, standing_in

QUICK = {"backoff": 0.01}
Serve = Callable[..., StandIn]


@pytest.fixture
def serve(tiny_chat: Path) -> Iterator[Serve]:
    """Start stand-ins that serve the tiny instruct model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    with ExitStack() as stack:
        yield lambda kind=StandIn, port=0, **like: stack.enter_context(standing_in(kind(tokenizer, **like), port))


def open_several(model: Path, *servers: StandIn, **model_args: Any) -> Engine:
    tokenizer = AutoTokenizer.from_pretrained(model)
    server = Server(servers[0].url, "tiny", others=tuple(s.url for s in servers[1:]))
    options = EngineOptions(max_len=300, model_args=QUICK | model_args, server=server)
    engine = open_engine("api", model, tokenizer, frozenset({tokenizer.eos_token_id}), options)
    for stand_in in servers:
        stand_in.armed = True
    return engine


def collect(engine: Engine, requests: list[Any]) -> dict[str, Answer]:
    found = [a for batch in engine.answers(requests) for a in batch]
    assert len({a.id for a in found}) == len(found), "no request is answered twice"
    return {a.id: a for a in found}


def test_requests_go_to_the_server_that_has_room(serve: Serve, tiny_chat: Path) -> None:
    quick, slow = serve(delay=0.01), serve(delay=0.1)
    requests = some_requests("lg", 30)
    with open_several(tiny_chat, quick, slow, concurrency=2) as engine:
        quick.widest = slow.widest = 0
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)
        stated = engine.describe()
    assert quick.widest == slow.widest == 2, "so many at once on each"
    assert slow.calls > 2
    assert quick.calls > 2 * slow.calls
    assert [s["base_url"] for s in stated["servers"]] == [quick.url, slow.url]
    assert not any(t.name == "darumeru-api" for t in threading.enumerate())


def test_what_a_dying_server_had_open_is_asked_of_another(
    serve: Serve, tiny_chat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, dying = serve(delay=0.01), serve(delay=0.01)
    requests = some_requests("crlg", 12)
    with open_several(tiny_chat, whole, dying, concurrency=3) as engine:
        dying.dies_after = 10
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)
    assert dying.calls > 10
    assert f"The server at {dying.url} broke the connection off" in caplog.text
    assert "What it was asked goes to the others" in caplog.text


def test_a_server_that_answers_again_is_asked_again(
    serve: Serve, tiny_chat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    whole, away = serve(delay=0.03), serve(delay=0.03)
    requests = some_requests("g", 80)
    with open_several(tiny_chat, whole, away, concurrency=2) as engine:
        away.dies_after = 4
        answers = engine.answers(requests)
        found = list(next(answers))
        while away.calls < 8:  # it broke off some calls
            found += next(answers)
        away.dies_after, before = None, away.calls
        found += [a for batch in answers for a in batch]
    check({a.id: a for a in found}, requests, engine.tokenizer.eos_token_id)
    assert away.calls > before + 6
    assert f"The server at {away.url} answers again." in caplog.text


def test_a_server_that_hangs_gives_back_what_it_holds(serve: Serve, tiny_chat: Path) -> None:
    class Hangs(StandIn):
        def completion(self, body: dict[str, Any]) -> dict[str, Any]:
            if self.armed and self.calls > 4:
                time.sleep(3)
            return super().completion(body)

    whole, hanging = serve(), serve(Hangs)
    requests = some_requests("g", 20)
    with open_several(tiny_chat, whole, hanging, concurrency=4, timeout=0.5) as engine:
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)


def test_one_that_is_not_there_yet_joins_later(serve: Serve, tiny_chat: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    here, late = serve(delay=0.03), StandIn(AutoTokenizer.from_pretrained(tiny_chat))
    with standing_in(late):
        pass  # a free port
    port = int(late.url.rsplit(":", 1)[1].removesuffix("/v1"))
    requests = some_requests("g", 60)
    with open_several(tiny_chat, here, late, concurrency=1) as engine:
        assert "The others are asked, and it too when it answers." in caplog.text
        answers = engine.answers(requests)
        found = list(next(answers))
        with standing_in(late, port):
            found += [a for batch in answers for a in batch]
    check({a.id: a for a in found}, requests, engine.tokenizer.eos_token_id)
    assert late.calls > 5


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"shift": -0.2}, "do not have the same model: log-probabilities differ by 0.2 on average, allowed are 0.05"),
        ({"models": ("tiny", "other")}, None),
        ({"extras": False}, "cannot do the same"),
        ({"context": 64}, "The server's context is 64 tokens, and this run needs 300"),
        ({"models": ("other",)}, "does not serve 'tiny'"),
    ],
)
def test_servers_must_have_one_model(serve: Serve, tiny_chat: Path, like: dict[str, Any], message: str | None) -> None:
    servers = serve(), serve(**like)
    if message is None:
        open_several(tiny_chat, *servers).close()
        return
    with pytest.raises(UserError, match=message):
        open_several(tiny_chat, *servers)


def test_a_server_that_comes_back_as_another_is_not_asked(
    serve: Serve, tiny_chat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, other = serve(delay=0.02), serve()
    requests = some_requests("cl", 40)
    with open_several(tiny_chat, whole, other, concurrency=1) as engine:
        other.faults, other.shift = [(503, {}, "restarting")], -0.3
        check(collect(engine, requests), requests, engine.tokenizer.eos_token_id)
    assert "do not have the same model" in caplog.text


def test_where_none_answers_the_run_stops_and_resumes_with_other_helpers(
    serve: Serve, tiny_chat: Path, tmp_path: Path
) -> None:
    tasks = ["rwsd", "sum_extractive", "cp_sent_ru"]
    settings: dict[str, Any] = {
        "data": "mini", "tasks": tasks, "limit": 3, "engine": "api", "served_model": "tiny", "output": tmp_path / "runs",
    }  # fmt: skip
    first, second = serve(), serve()
    for stand_in in (first, second):
        stand_in.armed, stand_in.dies_after = True, 15
    patience = QUICK | {"retries": 3, "concurrency": 3}
    with pytest.raises(DarumeruError, match=r"None of the 2 servers answers|none answered it") as error:
        darumeru.evaluate(tiny_chat, base_url=[first.url, second.url], model_args=patience, **settings)
    assert error.value.exit_code == 1
    [begun] = (tmp_path / "runs").iterdir()
    assert (begun / "journal.jsonl").stat().st_size > 0
    first.dies_after, first.armed = None, False
    done = darumeru.evaluate(tiny_chat, base_url=[first.url, serve().url], model_args=patience, **settings)
    assert done.path == begun
    alone = darumeru.evaluate(
        tiny_chat, base_url=serve().url, model_args=patience, **settings | {"output": tmp_path / "alone"}
    )
    for task in tasks:
        assert list(done.samples(task)) == list(alone.samples(task))
    # Further servers, or a list of one, do not make it another run.
    for one in (first.url, [first.url], (first.url, second.url)):
        assert darumeru.evaluate(tiny_chat, base_url=one, model_args=patience, **settings).path == begun


def test_a_request_that_no_server_survives_stops_the_run(serve: Serve, tiny_chat: Path) -> None:
    requests = some_requests("g", 6)
    fatal = list(requests[2].prompt)

    class Dies(StandIn):
        def completion(self, body: dict[str, Any]) -> dict[str, Any]:
            if body["prompt"] == fatal:
                raise RuntimeError
            return super().completion(body)

    with (
        open_several(tiny_chat, serve(Dies), serve(Dies), retries=3, concurrency=1) as engine,
        pytest.raises(
            DarumeruError, match=rf"'{requests[2].id}' was asked of 2 servers, 4 times in all, and none answered"
        ),
    ):
        collect(engine, requests)


def test_the_command_line_takes_several_addresses(serve: Serve, tiny_chat: Path, tmp_path: Path) -> None:
    servers = [serve(), serve()]
    command = ["run", "--model", str(tiny_chat), "--data", "mini", "--tasks", "rwsd", "--limit", "2", "--engine", "api"]
    command += ["--served-model", "tiny", "--output", str(tmp_path)]
    given = [part for s in servers for part in ("--base-url", s.url)]
    result = CliRunner().invoke(app, [*command, *given])
    assert result.exit_code == 0, result.output
    twice = CliRunner().invoke(app, [*command, *given[:2], *given[:2]])
    assert twice.exit_code == 2
    assert "is given twice" in " ".join(twice.output.split())
