"""Drawn answers: how tokens are drawn, and requests of their own, each with its seed, for every repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from darumeru.errors import UserError
from darumeru.options import validated
from darumeru.requests import SEEDS, Request, Sampling
from darumeru.scoring.bootstrap import seed_of
from darumeru.settings import SamplingSettings

log = logging.getLogger(__name__)

GREEDY: dict[str, Any] = {"do_sample": False, "temperature": 0.0}
"""What records state of answers that are not drawn."""

LOWEST = 0.01
"""The lowest temperature, which vLLM would raise a lower one to."""

_NAMES = ("temperature", "top_p", "top_k", "min_p")

_OTHER = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""What else a model may recommend, by the value that does nothing; no engine here applies it."""


def sampling_of(settings: SamplingSettings, generation: Mapping[str, Any], *, thinks: bool = False) -> Sampling | None:
    """Return how tokens are drawn; None where answers are greedy.

    Args:
        settings: what is asked.
        generation: the model's own generation settings.
        thinks: whether the model thinks before it answers; greedy thoughts go in circles, so its own settings are the default.

    Raises:
        UserError: settings that contradict each other, or a model that recommends no sampling.
    """
    given = {name: value for name in _NAMES if (value := getattr(settings, name)) is not None}
    by_default = settings.sampling == "auto" and thinks and recommends(generation)
    by_model = settings.sampling == "model" or by_default
    values = (recommended(generation) if by_model else {}) | given
    asked = "--sampling greedy" if settings.sampling == "greedy" else "--temperature 0"
    if settings.sampling == "greedy" or values.get("temperature", 1.0) == 0 or not (given or by_model):
        if idle := next((name for name, value in given.items() if name != "temperature" or value), None):
            raise UserError(
                f"--{idle.replace('_', '-')} {given[idle]} has no effect on greedy answers, which {asked} asks for. Leave one of "
                "the two out."
            )
        if settings.repeats > 1:
            raise UserError(
                f"--repeats {settings.repeats}: greedy answers would be {settings.repeats} times the same. Give "
                "--temperature, or --sampling model."
            )
        return None
    if values.get("temperature", 1.0) < LOWEST:
        raise UserError(
            f"--temperature {values['temperature']}: below {LOWEST} the most probable token is drawn nearly always. Use "
            "--temperature 0 for greedy answers."
        )
    return Sampling(**values)


def recommends(generation: Mapping[str, Any]) -> bool:
    """Return whether a model's generation settings (its generation_config.json) recommend to draw."""
    given = any(generation.get(name) is not None for name in _NAMES)
    return bool(generation.get("do_sample", given)) and generation.get("temperature") != 0


def recommended(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling settings among a model's generation settings.

    Raises:
        UserError: they recommend none, or impossible ones.
    """
    found = {name: generation[name] for name in _NAMES if generation.get(name) is not None}
    if not recommends(generation):
        raise UserError(
            "--sampling model: the model's generation_config.json recommends no sampling. Give --temperature (and --top-p, "
            "--top-k, --min-p), or leave --sampling out for greedy answers."
        )
    validated(
        SamplingSettings, found, named=lambda name: f"--sampling model: {name} in the model's generation_config.json"
    )
    ignored = [
        f"{name} {generation[name]}" for name, none in _OTHER.items() if generation.get(name) not in (None, none)
    ]
    if ignored:
        log.warning("The model recommends %s too, which is not applied.", ", ".join(ignored))
    return found


def stated(sampling: Sampling | None, repeats: int) -> dict[str, Any]:
    """Return what a record states of how answers are drawn."""
    return GREEDY if sampling is None else {"do_sample": True, **asdict(sampling), "repeats": repeats}


def drawn(requests: Iterable[Request], sampling: Sampling, repeats: int, seed: int) -> list[Request]:
    """Return requests with each answer that is drawn, or thought about first, asked for as often as it is repeated.

    A request's seed comes from the run's, its id and its repeat, so that its tokens do not depend on what else is asked. The
    first repeat has the id of a request that is not repeated.

    Args:
        requests: in the order of their queries.
        sampling: how tokens are drawn.
        repeats: how many answers to each query.
        seed: of the run.

    Raises:
        UserError: no request asks for a text.
    """
    found: list[Request] = []
    for request in requests:
        if request.kind == "generate" or request.thinking:
            found += (request.drawn(sampling, seed_of(seed, request.id, n) % SEEDS, repeat=n) for n in range(repeats))
        else:
            found.append(request)
    if not any(request.sampling for request in found):
        raise UserError(
            "No answer can be drawn: all tasks choose among given options or weigh texts, without thinking first. Leave "
            "--temperature, --sampling and --repeats out, or choose tasks that generate with --tasks."
        )
    return found
