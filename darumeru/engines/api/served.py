"""A model as its server offers it: found in the server's list, and asked under the name that stands there."""

from __future__ import annotations

from typing import Any

from darumeru.engines.api.client import Client, NotJson, Refused
from darumeru.engines.base import Server
from darumeru.errors import DarumeruError, UserError


class ServedModel:
    """A model behind a server; `find` comes before all questions.

    Args:
        client: calls to the server.
        server: what is wanted of it.
    """

    name: str
    """What the server calls it."""
    context: int | None
    """The longest input with its answer, in tokens, if the server says."""
    version: str | None
    """Of the server, if it says."""

    def __init__(self, client: Client, server: Server) -> None:
        self._client = client
        self._server = server
        self.base_url = client.base
        """The address under which the server has its list of models."""

    async def find(self) -> None:
        """Look the model up in the server's list.

        Raises:
            UserError: the server does not have it, or is no server of models.
            DarumeruError: it cannot be reached, or fails.
        """
        card = await self._card()
        self.name = str(card["id"])
        context = card.get("max_model_len")
        self.context = context if isinstance(context, int) else None
        self.version = await self._ask_version()

    async def _card(self) -> dict[str, Any]:
        """The server's entry for the model asked for."""
        listed = await self._models()
        by_name = {str(entry["id"]): entry for entry in listed}
        for name in (self._server.model, *self._server.aliases):
            if name in by_name:
                return by_name[name]
        names = ", ".join(f"'{n}'" for n in by_name) or "nothing"
        raise UserError(
            f"The server at {self.base_url} does not serve '{self._server.model}'. It serves: {names}. "
            "Give the right one with --served-model."
        )

    async def _models(self) -> list[dict[str, Any]]:
        problem = "has no list of models (/models)"
        bases = [self._client.base] + ([] if self._client.base.endswith("/v1") else [f"{self._client.base}/v1"])
        for base in bases:
            self._client.base = base
            try:
                listed = (await self._client.get(f"{base}/models")).get("data")
            except Refused as error:
                if not error.missing:
                    raise DarumeruError(f"The server at {base} answers {error.status}: {error.said}") from None
                continue
            except NotJson as error:
                problem = f"answers with {error}"
                continue
            if isinstance(listed, list) and all(isinstance(e, dict) and "id" in e for e in listed):
                self.base_url = base
                return listed
            problem = "answers with JSON that is no list of models"
        raise UserError(
            f"What is at {self.base_url} {problem}, so it is no OpenAI-compatible API. "
            "--base-url usually ends in /v1, such as http://127.0.0.1:8000/v1."
        )

    async def _ask_version(self) -> str | None:
        """The server's version, where it tells (vLLM does, beside /v1)."""
        try:
            version = (await self._client.get(f"{self._client.base.removesuffix('/v1')}/version")).get("version")
        except (Refused, NotJson, DarumeruError):
            return None
        return str(version)[:100] if version else None

    async def attempt(self, path: str, *bodies: dict[str, Any]) -> tuple[int, dict[str, Any]] | Refused:
        """The first of some bodies that the server takes, and its answer; else why it refused the last."""
        refusal = Refused(0, "")
        for number, body in enumerate(bodies):
            try:
                return number, await self.post(path, body, patient=False)
            except Refused as error:
                refusal = error
                if error.missing:
                    break
        return refusal

    async def post(self, path: str, body: dict[str, Any], *, patient: bool = True) -> dict[str, Any]:
        """Ask the model.

        Raises:
            Refused: the server will not.
            DarumeruError: what came back is no answer.
        """
        try:
            answer = await self._client.post(f"/{path}", {"model": self.name, **body}, patient=patient)
        except NotJson as error:
            raise DarumeruError(
                f"The server at {self.base_url} answers with {error}. The answers so far are kept."
            ) from None
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise DarumeruError(f"The server at {self.base_url} answers without a choice. The answers so far are kept.")
        return answer
