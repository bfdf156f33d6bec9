"""Settings → plan: every task, document and request of a run, before a model is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from darumeru.data.bundle import open_bundle
from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.inference.model import Model, adapter_sha256, open_model, template_sha256
from darumeru.inference.prompt import Limits, Mode, Prompter
from darumeru.record.header import FORMAT
from darumeru.requests import Request
from darumeru.settings import Settings
from darumeru.task.suite import Catalogue, Suite, read_wording

if TYPE_CHECKING:
    from darumeru.engines import Server
    from darumeru.task import DarumeruTask


FOUNDATION_FEWSHOT = 5


class Progress(Protocol):
    """Is told how far a run has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` tokens' worth of requests are answered."""
        ...


@dataclass(frozen=True)
class Plan:
    """A run that has been thought through: nothing is computed yet, everything is decided."""

    settings: Settings
    model: Model
    tokenizer: Any
    engine: str
    mode: Mode
    num_fewshot: int
    suite: Suite
    tasks: dict[str, DarumeruTask]
    documents: dict[str, list[int]]
    """For each task the indices of the documents to evaluate."""
    requests: list[Request]
    wording: dict[str, dict[str, Any]]
    context_len: int | None
    seconds: float
    """How long it took to think it through."""
    server: Server | None = None
    """What the api engine asks."""

    @property
    def max_len(self) -> int:
        """The longest prompt with its answer, in tokens."""
        return max(len(r.prompt) + answer_tokens(r) for r in self.requests) + 1

    def header(self, engine_version: str) -> dict[str, Any]:
        """What the record states of the run; equal for equal runs."""
        settings = self.settings
        # Only a checkpoint's header has the key: the identities of other runs are as they were.
        training = {"training": settings.training.model_dump(exclude_none=True)} if settings.training else {}
        header = {
            "format": FORMAT,
            "model": model_facts(
                self.model, self.tokenizer, self.mode, self.context_len, self.server, settings.adapter
            ),
            "engine": engine_facts(settings, self.engine, engine_version, self.server),
            "mode": self.mode,
            "num_fewshot": self.num_fewshot,
            "seed": settings.seed,
            "limit": settings.limit,
            "max_prompt_len": settings.max_prompt_len,
            "generation": {"do_sample": False, "temperature": 0.0},
            "likelihood": settings.likelihood,
            "exact": settings.exact,
            "suite": {
                "name": self.suite.name,
                "version": self.suite.version,
                "summary": self.suite.summary,
                "groups": [group.describe() for group in self.suite.groups],
            },
            "tasks": {
                name: {
                    "version": str(task.VERSION),
                    "documents": len(self.documents[name]),
                    "of": len(task.docs()),
                    "data": task.sources(),
                    "wording": self.wording.get(name),
                }
                for name, task in self.tasks.items()
            },
            "requests_sha256": requests_sha256(self.requests),
        }
        return header | training


def model_facts(
    model: Model,
    tokenizer: Any,
    mode: Mode,
    context_len: int | None,
    server: Server | None = None,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """What a record states of a model: what decides its answers, and what a reader wants to know."""
    template = tokenizer.chat_template if mode == "instruct" else None
    return {
        "name": model.name,
        "revision": model.revision,
        # Nobody knows the weights behind a server: its address and its name for them stand in for them.
        "weights_sha256": model.weights_sha256 if server is None else None,
        "tokenizer_sha256": model.tokenizer_sha256,
        "parameters": model.parameters if server is None else None,
        "vocab_size": model.text_config("vocab_size"),
        "model_type": model.config.get("model_type"),
        "context_len": context_len,
        "adapter_sha256": adapter_sha256(adapter) if adapter else None,
        "chat_template": template,
        "chat_template_sha256": template_sha256(template),
    }


def engine_facts(settings: Settings, engine: str, version_: str, server: Server | None) -> dict[str, Any]:
    """What a record states of how a model is computed."""
    facts: dict[str, Any] = {
        "name": engine,
        "version": version_,
        "dtype": settings.dtype,
        "device": settings.device,
        "model_args": {k: str(v) for k, v in settings.model_args.items()},
    }
    if server is not None:
        facts |= {"base_url": server.base_url, "served_model": server.model, "approximate": server.approximate}
    return facts


def requests_sha256(requests: Iterable[Request]) -> str:
    """Fingerprint of all that an engine is asked."""
    return fingerprint(
        [[r.id, r.kind, list(r.prompt), r.labels, r.continuations, r.max_tokens, list(r.until)] for r in requests]
    )


def answer_tokens(request: Request) -> int:
    """The most tokens that an answer adds to a prompt."""
    sequences = [*request.continuations, *(s for label in request.labels for s in label)]
    return max(request.max_tokens, max(map(len, sequences), default=0))


def prepare(settings: Settings, model: Model | None = None, tokenizer: Any = None) -> Plan:
    """Resolve settings into a plan: everything that can be wrong with a request is found here, before a model is loaded.

    Args:
        settings: what is asked.
        model: the model, if it is open already, with its tokenizer; `settings.model` is not looked up then.
        tokenizer: see `model`.

    Raises:
        UserError: the settings ask for what there is not.
        DarumeruError: the hub cannot be asked, a tokenizer cannot be loaded.
    """
    began = time.perf_counter()
    from darumeru.engines import resolve_engine

    engine = resolve_engine(settings.engine)
    server = server_of(settings, engine)
    catalogue = Catalogue(settings.include_path)
    suite = catalogue.suite(settings.suite, settings.tasks)
    wording = read_wording(settings.wording) if settings.wording else {}
    for name in wording:
        if name not in suite.tasks:
            raise UserError(
                f"Wording file '{settings.wording}' words task '{name}', which is not evaluated. "
                f"Evaluated are: {', '.join(suite.tasks)}."
            )
    bundle = open_bundle(settings.data, settings.lock)
    if model is None:
        model = open_model(settings.model, settings.revision, settings.trust_remote_code, weights=server is None)
        model = replace(
            model,
            name=settings.training.run if settings.training else model.name,
            tokenizer_path=settings.tokenizer,
        )
        tokenizer = model.tokenizer(settings.trust_remote_code)
    if server is not None and not server.model:
        # A server names its model by hub id or path, as it was started; in the record a path would say nothing.
        server = replace(server, model=model.name, aliases=(settings.model,))
    mode: Mode = settings.mode if settings.mode != "auto" else "instruct" if tokenizer.chat_template else "foundation"
    fewshot = settings.num_fewshot
    if fewshot is None:
        fewshot = FOUNDATION_FEWSHOT if mode == "foundation" else 0
    context_len = model.context_len(tokenizer)
    prompter = Prompter(tokenizer, mode, Limits(settings.max_prompt_len, context_len))

    if settings.adapter:
        adapter_sha256(settings.adapter)
    tasks = catalogue.load(suite.tasks, bundle, wording, settings.likelihood, settings.corpus)
    documents, requests = {}, []
    for name, task in tasks.items():
        docs = task.docs()
        documents[name] = task.sample(settings.limit, settings.seed)
        requests += prompter.requests(
            (f"{name}/{index}/{number}", query, task.fewshot(docs[index], fewshot))
            for index in documents[name]
            for number, query in enumerate(task.asked(docs[index]))
        )
    return Plan(
        settings,
        model,
        tokenizer,
        engine,
        mode,
        fewshot,
        suite,
        tasks,
        documents,
        requests,
        {name: w.model_dump(exclude_none=True) for name, w in wording.items()},
        context_len,
        time.perf_counter() - began,
        server,
    )


def server_of(settings: Settings, engine: str) -> Server | None:
    """The server that the settings name.

    Raises:
        UserError: the api engine has no usable server, or another engine has one.
    """
    if engine != "api":
        given = {
            "--base-url": settings.base_url,
            "--api-key-env": settings.api_key_env,
            "--served-model": settings.served_model,
            "--approximate": settings.approximate,
        }
        for option, value in given.items():
            if value:
                raise UserError(f"{option} belongs to a server: it needs --engine api.")
        return None
    from darumeru.engines.api.client import Patience, read_key, server_url
    from darumeru.engines.base import Server

    if not settings.base_url:
        raise UserError("--engine api needs the server's address: --base-url http://HOST:PORT/v1.")
    for option, chosen in (("--dtype", settings.dtype), ("--device", settings.device)):
        if chosen != "auto":
            raise UserError(
                f"{option} '{chosen}' is the server's to decide: start the server so, and leave it out here."
            )
    Patience.of(settings.model_args)
    read_key(settings.api_key_env)
    return Server(
        server_url(settings.base_url),
        settings.served_model or "",
        api_key_env=settings.api_key_env,
        approximate=settings.approximate,
    )
