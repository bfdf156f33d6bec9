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
    from darumeru.evaluation import Progress, Settings
    from darumeru.requests import Answer, Query, Request


@dataclass(frozen=True)
class Asked:
    """The answers to some queries, in their order."""

    requests: tuple[Request, ...]
    answers: tuple[Answer | None, ...]
    """None where the engine could not answer; see `faults`."""
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
    from darumeru.engines import resolve_engine
    from darumeru.evaluation import answer_tokens, engine_facts, engine_version, load, model_facts, server_of
    from darumeru.evaluation import ask as ask_engine
    from darumeru.files import fingerprint
    from darumeru.inference.model import open_model
    from darumeru.inference.prompt import Limits, Prompter
    from darumeru.record.run import Journal

    engine = resolve_engine(settings.engine)
    server = server_of(settings, engine)
    model = open_model(settings.model, settings.revision, weights=server is None)
    if server is not None and not server.model:
        server = replace(server, model=model.name, aliases=(settings.model,))
    tokenizer = model.tokenizer()
    if not tokenizer.chat_template:
        raise UserError(f"{settings.model} has no chat template, so it cannot answer prompts. Name an instruct model.")
    context = model.context_len(tokenizer)
    prompter = Prompter(tokenizer, "instruct", Limits(settings.max_prompt_len, context))
    requests = [
        replace(r, id=fingerprint([r.kind, list(r.prompt), r.labels, r.max_tokens])[:24])
        for r in prompter.requests((str(number), query, ()) for number, query in enumerate(queries))
    ]
    facts = {
        "model": model_facts(model, tokenizer, "instruct", context, server),
        "engine": engine_facts(settings, engine, engine_version(engine), server),
    }
    key = {**facts, "model": {k: v for k, v in facts["model"].items() if k != "name"}}
    journal = Journal(journals / f"{name}-{fingerprint(key)[:10]}.jsonl")
    todo = list({r.id: r for r in requests}.values())
    faults: dict[str, str] = {}
    if any(r.id not in journal.answers for r in todo):
        longest = max(len(r.prompt) + answer_tokens(r) for r in todo) + 1
        with load(settings, engine, model, tokenizer, server, longest) as loaded:
            faults, _ = ask_engine(loaded, todo, journal, progress)
    return Asked(tuple(requests), tuple(journal.answers.get(r.id) for r in requests), faults, facts)
