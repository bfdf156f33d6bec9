"""Several servers of one model: requests spread over them, those of one that dies asked of another."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field

from darumeru.engines.api.client import LONGEST_PAUSE, Gone, Patience
from darumeru.engines.api.endpoint import Endpoint
from darumeru.engines.api.probe import Said
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request

log = logging.getLogger(__name__)

Ask = Callable[[Endpoint, Request], Awaitable[Answer]]
Follow = Callable[[Answer], Request | None]

LONGEST_REST = 30.0
"""Seconds after which a server that does not answer is tried again, at most; unless it wishes more."""


@dataclass(eq=False)
class _Member:
    """A server, and how it is."""

    endpoint: Endpoint
    failures: int = 0
    """Times in a row that it did not answer; it is asked nothing while there are any."""
    error: DarumeruError | None = None
    open: set[asyncio.Task[Answer]] = field(default_factory=set)
    """What it is being asked."""

    def failed(self, error: DarumeruError, consequence: str) -> None:
        """Count a failure, and say what is new about it."""
        if str(error) != str(self.error):
            log.warning("%s %s", error, consequence)
        self.failures, self.error = self.failures + 1, error

    @property
    def pause(self) -> float:
        """Seconds after which it wishes to be asked again."""
        return self.error.pause if isinstance(self.error, Gone) else 0.0


class Servers:
    """One or several servers of one model.

    Args:
        endpoints: the servers; the first stands for the model.
        patience: how they are asked.
    """

    def __init__(self, endpoints: Sequence[Endpoint], patience: Patience) -> None:
        self.members = [_Member(endpoint) for endpoint in endpoints]
        self.patience = patience
        self._first: tuple[Endpoint, Said] | None = None

    @property
    def alone(self) -> bool:
        """Return whether there is one only, which then needs no likeness."""
        return len(self.members) == 1

    @property
    def first(self) -> Endpoint:
        """The server that the others must be like."""
        return self._first[0] if self._first else self.members[0].endpoint

    @property
    def serving(self) -> list[Endpoint]:
        """The servers that answer."""
        return [m.endpoint for m in self.members if not m.failures]

    async def start(self) -> None:
        """Try out all servers; those that do not answer yet may come later.

        Raises:
            UserError: see `Endpoint.start`; or two of them have different models.
            DarumeruError: none of them answers, or one fails.
        """
        if self.alone:
            await self.first.start()
            return
        results = await asyncio.gather(*(m.endpoint.start() for m in self.members), return_exceptions=True)
        for member, error in zip(self.members, results, strict=True):
            if isinstance(error, Gone):
                member.failed(error, "The others are asked, and it too when it answers.")
            elif error is not None:
                raise error
        for member in self.members:
            if not member.failures:
                await self._compare(member.endpoint)
        if self._first is None:
            raise DarumeruError(f"None of the {len(self.members)} servers answers. {self.members[0].error}")

    async def prove(self, endpoint: Endpoint) -> None:
        """Try out a server that was gone, and see to it that it has the same model.

        Raises:
            DarumeruError: it still does not answer, or is another one now.
        """
        await endpoint.start()
        await self._compare(endpoint)

    async def _compare(self, endpoint: Endpoint) -> None:
        said = await endpoint.probe()
        if self._first is None:
            self._first = endpoint, said
            return
        first, wanted = self._first
        where = f"The servers at {first.served.base_url} and {endpoint.served.base_url}"
        difference = wanted.difference(said)
        if first.served.name != endpoint.served.name:
            difference = f"one calls it '{first.served.name}', the other '{endpoint.served.name}'"
        if difference:
            raise UserError(
                f"{where} do not have the same model: {difference}. All --base-url of a run must serve one model in one "
                "data type; leave the other one out."
            )
        able, other = asdict(first.abilities), asdict(endpoint.abilities)
        if differing := [f"{key} {able[key]} and {other[key]}" for key in able if able[key] != other[key]]:
            raise UserError(
                f"{where} cannot do the same ({', '.join(differing)}). Start both with one version and the same options, or "
                "leave one out."
            )

    async def work(self, todo: Iterable[Request], ask: Ask, follow: Follow, found: Callable[[Answer], None]) -> None:
        """Have requests answered, each server `concurrency` at once, and what follows an answer by the same server.

        Args:
            todo: the requests, in the order in which they are asked.
            ask: gets a server's answer.
            follow: gives the request that follows an answer.
            found: takes an answer as soon as it is there.

        Raises:
            DarumeruError: as `ask` does; with several servers `Gone` only where none answers, or a request fails everywhere.
        """
        await _Work(self, todo, ask, follow, found).run()

    async def close(self) -> None:
        """Drop all connections."""
        for member in self.members:
            await member.endpoint.client.close()


class _Work:
    """Requests that the servers' workers take from one queue: who has fewer open than it may have takes the next."""

    def __init__(
        self, servers: Servers, todo: Iterable[Request], ask: Ask, follow: Follow, found: Callable[[Answer], None]
    ) -> None:
        self._servers, self._ask, self._follow, self._found = servers, ask, follow, found
        self._todo = deque(todo)
        self._open = 0
        self._tries: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._watches: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as self._group:
                for member in self._servers.members:
                    if member.failures:
                        self._watch(member)
                for _ in range(self._servers.patience.concurrency):
                    for member in self._servers.members:
                        self._group.create_task(self._worker(member))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _worker(self, member: _Member) -> None:
        while (request := await self._next(member)) is not None:
            following: Request | None = request
            while following is not None:
                answer = await self._answer(member, following)
                if answer is None:
                    break
                self._found(answer)
                following = None if answer.error else self._follow(answer)
            self._open -= 1
            await self._tell()

    async def _next(self, member: _Member) -> Request | None:
        """Return what the server is asked next; None where nothing is left, nor may come back from another one."""
        async with self._changed:
            while self._todo or self._open:
                if self._todo and not member.failures:
                    self._open += 1
                    return self._todo.popleft()
                await self._changed.wait()
        for watch in self._watches:
            watch.cancel()
        return None

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _answer(self, member: _Member, request: Request) -> Answer | None:
        """Return the server's answer; None where it is gone and the request back in the queue."""
        task = asyncio.ensure_future(self._ask(member.endpoint, request))
        member.open.add(task)
        try:
            await asyncio.wait([task])
        finally:
            member.open.discard(task)
            task.cancel()
        if not task.cancelled():
            try:
                return task.result()
            except Gone as error:
                if self._servers.alone:
                    raise
                self._rest(member, error)
        self._tries[request.id] += 1
        if self._tries[request.id] > self._servers.patience.retries:
            raise DarumeruError(
                f"'{request.id}' was asked of {len(self._servers.members)} servers, {self._tries[request.id]} times in all, "
                f"and none answered it, at last: {member.error}"
            )
        self._todo.appendleft(request)
        return None

    def _rest(self, member: _Member, error: Gone) -> None:
        """Ask a server nothing more until it answers a probe."""
        if not member.failures:
            member.failed(error, "What it was asked goes to the others.")
            self._watch(member)
            self._check_hope()

    def _watch(self, member: _Member) -> None:
        self._watches.add(self._group.create_task(self._revive(member)))

    async def _revive(self, member: _Member) -> None:
        while member.failures:
            rest = self._servers.patience.backoff * 2 ** min(member.failures - 1, 16)
            await asyncio.sleep(max(min(rest, LONGEST_REST), member.pause))
            try:
                await self._servers.prove(member.endpoint)
            except DarumeruError as error:
                member.failed(error, "It is asked nothing.")
                for task in member.open:  # it may never answer
                    task.cancel()
                self._check_hope()
            else:
                member.failures, member.error = 0, None
                log.warning("The server at %s answers again.", member.endpoint.served.base_url)
                await self._tell()

    def _check_hope(self) -> None:
        """Give up where no server answers any more.

        Raises:
            DarumeruError: each has been tried as often as patience says.
        """
        members = self._servers.members
        if all(m.failures > self._servers.patience.retries or m.pause > LONGEST_PAUSE for m in members):
            raise DarumeruError(f"None of the {len(members)} servers answers, at last: {members[0].error}")
