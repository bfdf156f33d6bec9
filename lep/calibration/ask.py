"""Questions to a model through one of Darumeru's engines; every answer is kept as it comes.

An answer is kept under what it answers (the prompt's tokens, the limit), in a journal of its own for each model and way to
compute it. So a call resumes where an earlier one stopped, and more prompts ask nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError

if TYPE_CHECKING:
    from darumeru.inference import Progress
    from darumeru.requests import Answer, Query, Request
    from darumeru.settings import Settings


@dataclass(frozen=True)
class Asked:
    """The answers to some queries, in their order."""

    requests: tuple[Request, ...]
    answers: tuple[Answer | None, ...]
    """None where the engine could not answer; see `faults`."""
    rethought: tuple[bool, ...]
    """Whether an answer itself opens or closes a thought."""
    faults: dict[str, str]
    """Request → why it was not answered; the next call asks it again."""
    facts: dict[str, Any]
    """Model and engine, for the report."""


def ask(settings: Settings, queries: Sequence[Query], journals: Path, name: str, progress: Progress | None) -> Asked:
    """Have a model answer queries, or what of them its journal does not hold yet.

    Args:
        settings: the model and how to compute it.
        queries: what to ask; the model's chat template renders it.
        journals: the folder that keeps the answers.
        name: what the journal's file name begins with.
        progress: is told how far it is.

    Raises:
        UserError: there is no such model, or it has no chat template.
        DarumeruError: the engine failed; what it answered is kept.
    """
    from darumeru.files import fingerprint
    from darumeru.inference import OpenedModel, longest_input
    from darumeru.inference import ask as ask_engine
    from darumeru.record.run import Journal

    opened = OpenedModel.of(settings, mode="instruct", thinking=settings)
    if not opened.tokenizer.chat_template:
        raise UserError(f"{settings.model} has no chat template, so it cannot answer prompts. Name an instruct model.")
    prompter = opened.prompter()
    requests = [
        replace(r, id=_identity(r))
        for r in prompter.requests((str(number), query, ()) for number, query in enumerate(queries))
    ]
    facts = {"model": opened.model_facts(), "engine": opened.engine_facts(), **opened.thinking_facts()}
    key = {**facts, "model": {k: v for k, v in facts["model"].items() if k != "name"}}
    journal = Journal(journals / f"{name}-{fingerprint(key)[:10]}.jsonl")
    todo = list({r.id: r for r in requests}.values())
    faults: dict[str, str] = {}
    if any(r.id not in journal.answers for r in todo):
        with opened.load(longest_input(todo)) as loaded:
            faults, _ = ask_engine(loaded, todo, journal, progress)
    answers = tuple(journal.answers.get(r.id) for r in requests)
    rethought = tuple(a is not None and opened.style.again(a) for a in answers)
    return Asked(tuple(requests), answers, rethought, faults, facts)


def _identity(request: Request) -> str:
    """Return the id under which the answer to a request is kept."""
    from darumeru.files import fingerprint

    thinking = [[t.budget, t.end, t.resume]] if (t := request.thinking) else []
    return fingerprint([request.kind, list(request.prompt), request.labels, request.max_tokens, *thinking])[:24]
