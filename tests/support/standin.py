"""A stand-in for a model server on the loopback address: a made-up model, and every way in which a server can be difficult."""

from __future__ import annotations

import json
import math
import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from darumeru.requests import Answer, Request
from support.quiet import QuietServer

VOCABULARY = 600


def logprobs(prompt: Sequence[int]) -> np.ndarray:
    """The made-up model: what it thinks of each next token."""
    seed = sum((i % 7 + 1) * t for i, t in enumerate(prompt[-20:])) + len(prompt)
    logits = np.random.default_rng(seed).normal(0, 3, VOCABULARY)
    logits -= logits.max()
    return logits - math.log(np.exp(logits).sum())


def continuation(prompt: Sequence[int], tail: Sequence[int]) -> list[float]:
    """The log-probability of each token of a continuation."""
    return [float(logprobs([*prompt, *tail[:i]])[t]) for i, t in enumerate(tail)]


@dataclass
class StandIn:
    """What the server is like, and what it saw."""

    tokenizer: Any
    models: tuple[str, ...] = ("tiny",)
    context: int | None = 8192
    extras: bool = True
    """vLLM's parameters."""
    tokens: bool = True
    """Prompts of token ids."""
    echo: bool = True
    chat_only: bool = False
    strict: bool = False
    """Refuses parameters that it does not know."""
    refusal: int = 400
    """How it says so."""
    most: int = 20
    """The most `logprobs`."""
    key: str | None = None
    bos: bool = False
    """Puts the beginning-of-sequence token before texts."""
    shift: float = 0.0
    """Added to all log-probabilities: a server that gives logits."""
    html: bool = False
    faults: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    """Statuses, headers and bodies to answer the next calls (not the start-up ones) with."""
    fails_each: int = 0
    """Of so many calls the last is answered with 503."""
    cuts_each: int = 0
    """Of so many calls the last is broken off."""
    dies_after: int | None = None
    """Breaks off every connection after so many calls."""
    delay: float = 0.0
    refuses: int | None = None
    """A prompt of that many tokens is refused."""
    calls: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0
    widest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""
    armed: bool = False
    """Whether the start-up is over, which asks with the probe's text."""

    def encode(self, prompt: Any) -> list[int]:
        return (
            list(prompt) if isinstance(prompt, list) else self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        )

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.encode(body["prompt"])
        if self.bos and isinstance(body["prompt"], str):
            ids = [self.tokenizer.bos_token_id, *ids]
        new = self.generate(ids, body)
        return self.answer(body, ids, new, {"text": self.tokenizer.decode(new, skip_special_tokens=True)})

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        ids = self.encode(text)
        new = self.generate(ids, body)
        content = self.tokenizer.decode(new, skip_special_tokens=True)
        return self.answer(body, ids, new, {"message": {"role": "assistant", "content": content}})

    def generate(self, ids: list[int], body: dict[str, Any]) -> list[int]:
        new: list[int] = []
        while len(new) < body.get("max_tokens", 16):
            new.append(int(logprobs(ids + new).argmax()))
            if new[-1] in {self.tokenizer.eos_token_id, *body.get("stop_token_ids", [])}:
                break
        return new

    def answer(self, body: dict[str, Any], ids: list[int], new: list[int], choice: dict[str, Any]) -> dict[str, Any]:
        ended = bool(new) and new[-1] == self.tokenizer.eos_token_id
        choice |= {"index": 0, "finish_reason": "stop" if ended else "length"}
        if self.extras and body.get("return_token_ids"):
            choice |= {"token_ids": new, "prompt_token_ids": ids}
        if self.extras and "prompt_logprobs" in body:
            rows: list[Any] = [None]
            for i, value in enumerate(continuation(ids[:1], ids[1:]), start=1):
                rank = int((logprobs(ids[:i]) > value + 1e-9).sum()) + 1
                rows.append({str(ids[i]): {"logprob": value + self.shift, "rank": rank}})
            choice["prompt_logprobs"] = rows
        if body.get("logprobs") is True:
            first = logprobs(ids)
            top = [
                {"token": self.name(t, body), "logprob": float(first[t])} for t in self.top(first, body["top_logprobs"])
            ]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        elif "logprobs" in body:
            choice["logprobs"] = self.logprobs(body, ids, new)
        return {
            "choices": [choice],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": len(new)},
        }

    def logprobs(self, body: dict[str, Any], ids: list[int], new: list[int]) -> dict[str, Any]:
        start = 0 if body.get("echo") else len(ids)
        whole = ids + new
        tokens, values, tops = [], [], []
        for i in range(start, len(whole)):
            tokens.append(self.name(whole[i], body))
            if i == 0:
                values.append(None)
                tops.append(None)
                continue
            row = logprobs(whole[:i])
            wanted = body.get("logprob_token_ids") if self.extras else None
            wanted = [*wanted, whole[i]] if wanted else [*self.top(row, body["logprobs"]), whole[i]]
            values.append(float(row[whole[i]]) + self.shift)
            tops.append({self.name(t, body): float(row[t]) + self.shift for t in wanted})
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}

    def name(self, token: int, body: dict[str, Any]) -> str:
        if self.extras and body.get("return_tokens_as_token_ids"):
            return f"token_id:{token}"
        text: str = self.tokenizer.decode([token])
        return text

    @staticmethod
    def top(row: np.ndarray, count: int) -> list[int]:
        return [int(t) for t in row.argsort()[::-1][:count]]


KNOWN = {
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "logprobs",
    "top_logprobs",
    "echo",
    "stop",
}


class Handler(BaseHTTPRequestHandler):
    """One call."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status: int, message: str) -> None:
        self.reply(status, {"error": {"message": message, "code": status}})

    def welcome(self) -> bool:
        s: StandIn = self.server.stand_in
        if s.html:
            self.reply(200, "<!doctype html><title>Welcome</title>")
            return False
        if s.key and self.headers.get("Authorization") != f"Bearer {s.key}":
            self.fail(401, f"Incorrect key {self.headers.get('Authorization')}")
            return False
        return True

    def do_GET(self) -> None:
        s: StandIn = self.server.stand_in
        if not self.welcome():
            return
        if self.path == "/v1/models":
            self.reply(200, {"data": [{"id": m, "max_model_len": s.context} for m in s.models]})
        else:
            self.fail(404, "Not Found")

    def do_POST(self) -> None:
        s: StandIn = self.server.stand_in
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.welcome():
            return
        with s.lock:
            s.open += 1
            s.widest = max(s.widest, s.open)
        try:
            self.work(s, body)
        finally:
            with s.lock:
                s.open -= 1

    def work(self, s: StandIn, body: dict[str, Any]) -> None:
        if s.armed:
            with s.lock:
                s.calls += 1
                s.bodies.append(body)
                fault = s.faults.pop(0) if s.faults else None
                if s.fails_each and s.calls % s.fails_each == 0:
                    fault = (503, {}, "busy")
                dead = s.dies_after is not None and s.calls > s.dies_after
                dead = dead or bool(s.cuts_each and s.calls % s.cuts_each == 0)
            time.sleep(s.delay)
            if dead:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault:
                self.reply(fault[0], fault[2], fault[1])
                return
        what = self.path.removeprefix("/v1")
        if what not in ("/completions", "/chat/completions") or (s.chat_only and what == "/completions"):
            self.fail(404, "Not Found")
        elif s.strict and set(body) - KNOWN:
            self.fail(s.refusal, f"Unrecognized request arguments: {sorted(set(body) - KNOWN)}")
        elif isinstance(body.get("prompt"), list) and not s.tokens:
            self.fail(400, "prompt must be a string")
        elif body.get("echo") and not s.echo:
            self.fail(400, "echo is not supported")
        elif max(int(body.get("logprobs") or 0), int(body.get("top_logprobs") or 0)) > s.most:
            self.fail(400, f"logprobs must be at most {s.most}")
        elif "prompt" in body and len(s.encode(body["prompt"])) == s.refuses:
            self.fail(400, "I do not like this one")
        elif "prompt" in body and s.context is None and len(s.encode(body["prompt"])) > 100:
            self.fail(400, "This model's maximum context length is 100 tokens.")
        else:
            self.reply(200, s.completion(body) if "prompt" in body else s.chat(body))


@contextmanager
def standing_in(stand_in: StandIn, port: int = 0) -> Iterator[StandIn]:
    """Let a stand-in serve, on any free port."""

    server = QuietServer(("127.0.0.1", port), Handler)
    server.stand_in = stand_in  # type: ignore[attr-defined]
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


# -- what it is asked, and what it must answer --------------------------------------------------------------------------


def some_requests(kinds: str = "crlg", count: int = 4) -> list[Request]:
    rng = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(6, 600) for _ in range(n))

    requests = []
    for i in range(count):
        prompt = tokens(rng.choice([3, 10, 40]))
        labels = ((tokens(1), (20, 30)), (tokens(1), (20, 31)), ((40, 50, 60), (7,)))
        each = {
            "c": Request(f"c/{i}/0", "choose", prompt, "", labels=labels),
            "r": Request(f"r/{i}/0", "rank", prompt, "", continuations=tuple(tokens(5) for _ in range(6))),
            "l": Request(f"l/{i}/0", "likelihood", prompt, "", continuations=(tokens(1 + i), tokens(3))),
            "g": Request(f"g/{i}/0", "generate", prompt, "", max_tokens=rng.choice([1, 8, 20])),
        }
        requests += [each[k] for k in kinds]
    return requests


def truth(request: Request, eos: int) -> Answer:
    """What the made-up model really says."""
    if request.kind == "choose":
        return Answer(
            request.id,
            logprobs=tuple(max(sum(continuation(request.prompt, s)) for s in label) for label in request.labels),
        )
    if request.kind == "generate":
        ids: list[int] = []
        while len(ids) < request.max_tokens and (not ids or ids[-1] != eos):
            ids.append(int(logprobs([*request.prompt, *ids]).argmax()))
        return Answer(request.id, tokens=tuple(i for i in ids if i != eos))
    sums = [continuation(request.prompt, c) for c in request.continuations]
    mean = request.kind == "rank"
    return Answer(request.id, logprobs=tuple(sum(v) / (len(v) if mean else 1) for v in sums))


def check(found: dict[str, Answer], requests: list[Request], eos: int) -> None:
    assert set(found) == {r.id for r in requests}
    for request in requests:
        want, got = truth(request, eos), found[request.id]
        assert got.logprobs == pytest.approx(want.logprobs, abs=1e-9), request.id
        assert got.tokens == want.tokens
        assert not got.approximate
