"""Requests whose prompts begin alike: what they share is computed once."""

from __future__ import annotations

from darumeru.requests import Request

SHARED_TOKENS = 64
"""A common prefix of at least so many tokens is computed once for all prompts that have it."""

RANKED_TOKENS = 8
"""A prompt of more tokens is computed once for its continuations, if it has several."""


def shared_prefixes(requests: list[Request]) -> list[tuple[int, list[Request]]]:
    """Return requests whose prompts begin alike, with the length of that prefix; 0 for those that share too little.

    The prompts in lexicographic order: neighbours have the longest common prefixes. A group grows while it keeps at least
    half of its common prefix, and never takes a prompt's last token, which has to be computed anew for its logits.
    """
    groups: list[tuple[int, list[Request]]] = []
    alone: list[Request] = []
    group: list[Request] = []
    shared = 0

    def close() -> None:
        if len(group) > 1:
            groups.append((shared, group))
        else:
            alone.extend(group)

    for request in sorted(requests, key=lambda r: (r.packed, r.id)):
        limit = request.prompt_tokens - 1
        common = min(shared, limit, group[0].packed.common(request.packed)) if group else 0
        if group and common >= max(SHARED_TOKENS, shared // 2 if len(group) > 1 else 0):
            group.append(request)
            shared = common
        else:
            close()
            group, shared = [request], limit
    close()
    return [*groups, (0, alone)]


def shares_prompt(request: Request) -> bool:
    """Return whether a request's continuations go on from one cache of its prompt."""
    return len(request.continuations) > 1 and request.prompt_tokens > RANKED_TOKENS
