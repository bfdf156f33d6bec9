"""Settings → plan: every task, document and request of a run, before a model is loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darumeru.data.bundle import HubBundle, open_bundle
from darumeru.errors import DarumeruError, UserError
from darumeru.inference.asking import longest_input, requests_sha256
from darumeru.inference.model import Model
from darumeru.inference.opened import OpenedModel
from darumeru.inference.prompt import Limits, Mode
from darumeru.inference.sampling import drawn, sampling_of, stated
from darumeru.record.header import FORMAT
from darumeru.requests import Request, Sampling, thinking_tokens
from darumeru.settings import Settings
from darumeru.task.suite import Catalogue, Suite, read_wording

if TYPE_CHECKING:
    from darumeru.task import DarumeruTask

log = logging.getLogger(__name__)

FOUNDATION_FEWSHOT = 5


@dataclass(frozen=True)
class Plan:
    """A run in which everything is decided and nothing is computed yet."""

    settings: Settings
    opened: OpenedModel
    num_fewshot: int
    suite: Suite
    tasks: dict[str, DarumeruTask]
    documents: dict[str, list[int]]
    """For each task the indices of the documents to evaluate."""
    requests: list[Request]
    wording: dict[str, dict[str, Any]]
    sampling: Sampling | None
    """How tokens are drawn; None for greedy answers."""
    missing: dict[str, str]
    """Task → why it cannot be asked: its data cannot be had from the hub, or no document of it fits the model's context. It is
    part of the suite and of no request."""
    left_out: dict[str, list[int]]
    """Task → its documents that are longer than the model's context, where there are any."""
    seconds: float
    """How long `prepare` took."""

    @property
    def unfit(self) -> set[str]:
        """Tasks of which no document fits the model's context: another start would not change that."""
        return self.missing.keys() & self.left_out.keys()

    @property
    def model(self) -> Model:
        """The model's folder."""
        return self.opened.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.opened.tokenizer

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self.opened.engine.name

    @property
    def mode(self) -> Mode:
        """Return how prompts are written."""
        return self.opened.mode

    @property
    def max_len(self) -> int:
        """The longest prompt with its answer, in tokens."""
        return longest_input(self.requests)

    def header(self) -> dict[str, Any]:
        """Return what the record states of the run; equal for equal runs."""
        settings = self.settings
        # Only a checkpoint's header has the key: the identities of other runs are as they were.
        training = {"training": settings.training.model_dump(exclude_none=True)} if settings.training else {}
        header = {
            "format": FORMAT,
            "model": self.opened.model_facts(),
            "engine": self.opened.engine_facts(),
            "mode": self.mode,
            "num_fewshot": self.num_fewshot,
            "seed": settings.seed,
            "limit": settings.limit,
            "max_prompt_len": settings.max_prompt_len,
            "generation": stated(self.sampling, settings.repeats),
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
                # Only where there are any: the identities of other runs are as they were.
                | ({"left_out": self.left_out[name]} if name in self.left_out else {})
                for name, task in self.tasks.items()
            }
            | {name: {} for name in self.missing},
            "requests_sha256": requests_sha256(self.requests),
        }
        return header | self.opened.thinking_facts() | training


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
    called = settings.training.run if settings.training else None
    opened = OpenedModel.of(
        settings, mode=settings.mode, thinking=settings, name=called, model=model, tokenizer=tokenizer
    )
    if model is None and opened.server is None:
        opened.model.hash_ahead()  # while prompts are built
    sampling = sampling_of(settings, opened.model.generation, thinks=settings.thinking == "on")
    fewshot = settings.num_fewshot
    if fewshot is None:
        fewshot = FOUNDATION_FEWSHOT if opened.mode == "foundation" else 0
    prompter = opened.prompter()
    tasks = catalogue.load(suite.tasks, bundle, wording, settings.likelihood, settings.corpus)
    missing = _missing(tasks) if isinstance(bundle, HubBundle) else {}
    tasks = {name: task for name, task in tasks.items() if name not in missing}
    documents, requests = {}, []
    left_out: dict[str, list[int]] = {}
    for name, task in tasks.items():
        docs = task.docs()
        chosen = task.sample(suite.limit(name, settings.limit), settings.seed)
        asked = prompter.requests(
            (f"{name}/{index}/{number}", query, task.fewshot(docs[index], fewshot))
            for index in chosen
            for number, query in enumerate(task.asked(docs[index]))
        )
        long, reason = _too_long(asked, opened.context_len)
        if long:
            left_out[name] = sorted(long)
            log.warning("Of task '%s' %d of %d documents are left out: %s.", name, len(long), len(chosen), reason)
        if chosen and len(long) == len(set(chosen)):
            missing[name] = f"no document fits the model: {reason}"
            continue
        documents[name] = [index for index in chosen if index not in long]
        requests += [r for r in asked if _document(r) not in long]
    if not requests and left_out:
        raise UserError(f"Nothing is left to evaluate. {next(iter(missing))}: {next(iter(missing.values()))}.")
    tasks = {name: task for name, task in tasks.items() if name not in missing}
    _check_lengths(requests, prompter.limits)
    if sampling is not None:
        requests = drawn(requests, sampling, settings.repeats, settings.seed)
    return Plan(
        settings,
        opened,
        fewshot,
        suite,
        tasks,
        documents,
        requests,
        {name: w.model_dump(exclude_none=True) for name, w in wording.items()},
        sampling,
        missing,
        left_out,
        time.perf_counter() - began,
    )


def _too_long(requests: Sequence[Request], context_len: int | None) -> tuple[set[int], str]:
    """Return the documents with a request that is longer with its answer than the context, and why the first of them is.

    Prompts are cut, so it is what a document itself has to be answered: a text of its own, a sentence that is ranked.
    """
    from darumeru.engines.base import too_long

    faults = {r.id: fault.error for r in requests if (fault := too_long(r, context_len))}
    return {_document(r) for r in requests if r.id in faults}, next(iter(faults.values()), "")


def _document(request: Request) -> int:
    """Return which document of its task a request asks about."""
    return int(request.id.rsplit("/", 2)[1])


def _check_lengths(requests: Sequence[Request], limits: Limits) -> None:
    """Refuse a context that is shorter than the shortest prompt: a run of beginnings that were cut off tells nothing.

    Raises:
        UserError: no prompt is whole, and it is the model's context that cuts them.
    """
    context = limits.context_len
    if context is None or not requests or not all(r.truncated for r in requests):
        return
    thought = max(map(thinking_tokens, requests))
    if context - thought >= limits.max_prompt_len:
        return
    shortest = min(r.prompt_tokens + r.truncated for r in requests)
    spent, remedy = "", "Choose tasks with shorter prompts with --tasks, or another model."
    if thought:
        spent, remedy = f", {thought:,} of them for a thought", "Give a smaller --thinking-budget."
    raise UserError(
        f"The model's context holds {context:,} tokens{spent}, and the shortest prompt alone has {shortest:,}: all would lose "
        f"their beginnings. {remedy}"
    )


def _missing(tasks: Mapping[str, DarumeruTask]) -> dict[str, str]:
    """Return why tasks' data cannot be had; the others can be computed.

    Raises:
        DarumeruError: none of them can be had.
    """
    missing: dict[str, str] = {}
    for name, task in tasks.items():
        try:
            task.docs()
            task.sources()
        except DarumeruError as error:
            if len(missing) + 1 == len(tasks):
                raise
            missing[name] = str(error)
            log.warning("Task '%s' is left out: %s", name, error)
    return missing
