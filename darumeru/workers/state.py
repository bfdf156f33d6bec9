"""What the driver knows of a worker, and of a model that workers are asked for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request
from darumeru.workers.cluster import Remote
from darumeru.workers.messages import Loaded, Started, ToLoad
from darumeru.workers.probe import differing
from darumeru.workers.work import DEATHS, Work

MOST_DEATHS = 12
"""Workers that may die one after another without any answer between them."""


@dataclass
class Seat:
    """A worker, and what it has."""

    remote: Remote
    started: Started | None = None
    model: str = ""
    """Key of the model that it holds or loads."""
    loading: bool = False
    out: dict[str, Request] = field(default_factory=dict)
    """What it was given and has not answered, by id."""
    window: int = 0
    """Requests that it was given last."""
    heard: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> str:
        """Return what it does."""
        if self.started is None:
            return "start"
        return "load" if self.loading else "answer" if self.out else "wait"


@dataclass
class AskedModel:
    """A model that is asked."""

    to_load: ToLoad
    work: Work = field(default_factory=Work)
    inbox: queue.SimpleQueue[list[Answer] | DarumeruError] = field(default_factory=queue.SimpleQueue)
    first: Loaded | None = None
    """What the first worker said that has loaded it."""
    first_node: str = ""
    loaded: threading.Event = field(default_factory=threading.Event)
    """Set when a worker has loaded it, or none can."""
    fault: DarumeruError | None = None
    loading_deaths: int = 0
    """Workers that died while they loaded it, since one did load it."""
    deaths: int = 0
    """Workers that died while they answered, since the last answer."""
    asked: bool = False
    """Whether it was given requests."""

    def fail(self, fault: DarumeruError) -> None:
        """Tell whoever waits for it that it cannot be asked any more."""
        if self.fault is None:
            self.fault = fault
            self.inbox.put(fault)
            self.loaded.set()

    def died(self, loading: bool, reason: str) -> None:
        """Count a worker that died of the model, or of its requests; too many one after another end it."""
        if loading:
            self.loading_deaths += 1
        else:
            self.deaths += 1
        if self.loading_deaths >= DEATHS or self.deaths >= MOST_DEATHS:
            number, doing = (DEATHS, "loaded the model") if loading else (MOST_DEATHS, "answered")
            self.fail(
                DarumeruError(
                    f"{number} workers died one after another while they {doing}, the last one so: {reason} The answers so far "
                    "are kept."
                )
            )

    def welcome(self, loaded: Loaded, node: str) -> None:
        """Take in a worker that has loaded the model; its answers to the probe must be those of the first one."""
        self.loading_deaths = 0
        if self.first is None:
            self.first, self.first_node = loaded, node
            self.loaded.set()
        elif fault := differing(self.to_load.probe, self.first.probe, loaded.probe, str(self.first.facts.get("dtype"))):
            self.fail(
                UserError(
                    f"The worker on node '{node}' answers otherwise than the one on '{self.first_node}': {fault}. Give all nodes "
                    "the same model folder and the same kind of device."
                )
            )


def check_versions(here: Mapping[str, str], started: Started) -> None:
    """Compare a node's packages with ours.

    Raises:
        UserError: it has others.
    """
    for name in sorted(here.keys() | started.versions.keys()):
        mine, theirs = here.get(name, "none"), started.versions.get(name, "none")
        if mine != theirs:
            raise UserError(
                f"Node '{started.node}' has {name} {theirs}, and here it is {mine}: install the same versions on all nodes."
            )
