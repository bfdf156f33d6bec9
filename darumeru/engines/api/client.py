"""Talking to a model server: one clear sentence for whatever can go wrong, patience where patience helps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from darumeru.errors import DarumeruError, UserError, unknown

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may be another one when the same is asked again."""

LONGEST_PAUSE = 600.0
"""Seconds; a server that asks for a longer pause (`Retry-After`) is given up."""


@dataclass(frozen=True)
class Patience:
    """Settings of calls: the `--model-args` of the api engine."""

    concurrency: int = 16
    """Calls that are under way at once, at most."""
    retries: int = 6
    """Number of times one call is repeated before the run stops."""
    backoff: float = 0.5
    """Seconds before the first repetition; it doubles each time, to 30 s at most."""
    timeout: float = 600.0
    """Seconds that one call may take."""

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Patience:
        """The patience in `--model-args`.

        Raises:
            UserError: an unknown name, or a value out of range.
        """
        fields = cls.__dataclass_fields__
        for key, value in arguments.items():
            if key not in fields:
                raise unknown("--model-args key for the api engine", key, fields)
            whole = fields[key].type == "int"
            lowest = 0 if key == "retries" else 1 if whole else 0.001
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not number or not value >= lowest:
                raise UserError(
                    f"--model-args {key}={value}: a {'whole ' if whole else ''}number of at least {lowest} is needed."
                )
        return cls(**arguments)


class Refused(Exception):  # noqa: N818
    """The server understood a call and will not do it: its status and its own words."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said

    @property
    def missing(self) -> bool:
        """Return whether there is nothing of that name."""
        return self.status in (404, 405, 501)


class NotJson(Exception):  # noqa: N818
    """The server answered with something else than a JSON object."""


class Gone(DarumeruError):  # noqa: N818
    """The server does not answer, or not now; another one may, and this one later."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause or 0.0
        """Seconds after which it wants to be asked again."""


class _Again(Exception):  # noqa: N818
    """A call that may go better the next time."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


def server_url(url: str) -> str:
    """A base URL as it is used and recorded.

    Raises:
        UserError: it is no http(s) address, or holds what must not be recorded.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    # The URL is not repeated in these messages: it may hold a password.
    if usable and (parts.username is not None or parts.password is not None or parts.query or parts.fragment):
        raise UserError(
            "--base-url holds a user name, a password, or something behind '?' or '#', and the record states the URL. "
            "Give only scheme, host, port and path, and name the variable that holds the key with --api-key-env."
        )
    if not usable:
        raise UserError("--base-url is no http(s) address. It looks like http://127.0.0.1:8000/v1.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def read_key(name: str | None) -> str | None:
    """The API key in an environment variable; nothing else ever knows it.

    Raises:
        UserError: the variable is not set, or holds what cannot be a key.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"--api-key-env: the environment variable '{name}' is not set or empty. Put the API key into it."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(
            f"--api-key-env: the environment variable '{name}' holds no API key (one line of ASCII letters)."
        )
    return key


class Client:
    """Calls to one server.

    Args:
        base: its address, see `server_url`.
        key_env: the environment variable that holds the API key, if it wants one.
        patience: how to ask it.

    Raises:
        UserError: httpx or tenacity is not installed; there is no API key where one was promised.
    """

    def __init__(self, base: str, key_env: str | None, patience: Patience) -> None:
        try:
            import httpx
            import tenacity  # noqa: F401
        except ImportError:
            raise UserError(
                "The api engine needs httpx and tenacity. Install the extra: pip install 'darumeru[api]'."
            ) from None
        self.patience = patience
        self.base = server_url(base)
        self._key_env = key_env
        self._key = read_key(key_env)
        local = urlsplit(self.base).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(patience.timeout, connect=min(10.0, patience.timeout)),
            limits=httpx.Limits(max_connections=patience.concurrency),
            trust_env=not local,  # a proxy knows another 127.0.0.1
        )
        self._room = asyncio.Semaphore(patience.concurrency)

    async def close(self) -> None:
        """Drop all connections."""
        await self._http.aclose()

    async def get(self, url: str) -> dict[str, Any]:
        """Return what is at an address of the server, asked once. See `post`."""
        return await self._call("GET", url, None, patient=False)

    async def post(self, path: str, body: dict[str, Any], *, patient: bool = True) -> dict[str, Any]:
        """Send JSON, get a JSON object.

        Args:
            path: below the base URL.
            body: what to send.
            patient: whether a server that cannot be reached, or fails, is asked again. One that breaks off always is.

        Raises:
            Refused: the server will not do it.
            NotJson: it answered something else.
            UserError: it wants another API key.
            Gone: it does not answer, or not in time, although it was asked again and again, or asks for too long a pause.
        """
        return await self._call("POST", self.base + path, body, patient)

    async def _call(self, method: str, url: str, body: dict[str, Any] | None, patient: bool) -> dict[str, Any]:
        import tenacity

        began = time.monotonic()
        grow = tenacity.wait_exponential_jitter(self.patience.backoff, max=30.0, jitter=self.patience.backoff)

        def pause(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(grow(state), (error.pause or 0.0) if isinstance(error, _Again) else 0.0)

        tries = 1 + self.patience.retries
        asking = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(tries),
            wait=pause,
            retry=tenacity.retry_if_exception_type(_Again),
            reraise=True,
        )
        made = 0
        try:
            async for attempt in asking:
                with attempt:
                    made += 1
                    async with self._room:
                        return await self._once(method, url, body, patient)
        except _Again as error:
            raise Gone(
                f"The server at {self.base} {error} (asked {made} times in {time.monotonic() - began:.0f} s). "
                "The answers so far are kept: when it is there again, the same command resumes from here.",
                error.pause,
            ) from None
        raise AssertionError  # `attempt` returns or raises

    async def _once(self, method: str, url: str, body: dict[str, Any] | None, patient: bool) -> dict[str, Any]:
        import httpx

        try:
            response = await self._http.request(method, url, json=body)
        except httpx.TimeoutException as error:
            said = f"did not answer within {self.patience.timeout:g} s, the limit that --model-args timeout=… sets"
            if isinstance(error, httpx.ConnectTimeout):
                said = "cannot be reached (no connection in time)"
            raise self._gone(said, patient) from None
        except httpx.TransportError as error:
            there = not isinstance(error, httpx.ConnectError)
            verb = "broke the connection off" if there else "cannot be reached"
            raise self._gone(f"{verb} ({self.clean(str(error)) or type(error).__name__})", patient or there) from None
        status = response.status_code
        if status in (401, 403):
            raise self._unwelcome(status)
        if status in BUSY and (patient or status != 500):  # some servers say 500 to a parameter that they do not know
            wanted = retry_after(response.headers.get("retry-after"))
            if wanted is not None and wanted > LONGEST_PAUSE:
                raise Gone(
                    f"The server at {self.base} answers {status} and asks for a pause of {wanted:.0f} s. "
                    "The answers so far are kept: start the same command again after it.",
                    wanted,
                )
            raise _Again(f"answers {status}: {self._said(response)}", wanted)
        if 300 <= status < 400:
            raise UserError(
                f"The server at {self.base} sends us elsewhere (status {status}). Give the final --base-url."
            )
        if status >= 400:
            raise Refused(status, self._said(response))
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            page = response.text.lstrip()[:1] == "<"
            raise NotJson("a web page (HTML)" if page else "something that is no JSON object")
        return value

    def _gone(self, what: str, patient: bool) -> Exception:
        if patient:
            return _Again(what)
        return Gone(f"The server at {self.base} {what}. Is it running, and is --base-url right?")

    def _unwelcome(self, status: int) -> UserError:
        name = self._key_env
        if name is None:
            return UserError(
                f"The server at {self.base} wants an API key (status {status}). Put it into an environment variable and "
                "name that with --api-key-env."
            )
        return UserError(
            f"The server at {self.base} refuses the API key in the environment variable '{name}' ({status})."
        )

    def _said(self, response: Any) -> str:
        """A server's own words about an error, in one line."""
        text: Any = response.text
        with contextlib.suppress(ValueError, AttributeError):
            value = json.loads(text)
            error = value.get("error", value.get("detail", value.get("message", text)))
            text = error.get("message", text) if isinstance(error, dict) else error
        text = " ".join(str(text).split())
        if text.startswith("<"):
            text = "a web page (HTML)"
        return self.clean(text[:300]) or "without a word"

    def clean(self, text: str) -> str:
        """`text` without the API key, which some servers repeat."""
        return text.replace(self._key, "***") if self._key else text


def retry_after(value: str | None) -> float | None:
    """Seconds in a `Retry-After` header: a number, or a date."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None
