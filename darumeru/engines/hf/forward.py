"""Forward passes of a transformers model: what they say to rows, and the texts that they generate."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from darumeru.engines.base import finish
from darumeru.engines.hf import caches
from darumeru.engines.hf.drawing import keep_rows, processors
from darumeru.engines.hf.rows import Row, Values, positions
from darumeru.requests import Answer, Request, Tokens

LOGIT_BYTES = 1 << 28
"""The most memory that the logits of a batch may take, in float32."""

PIECE = 16
"""Tokens after which rows that have ended leave a batch of generations. A row computes half as many in vain on average, and each
piece costs what transformers does before a generation, about half a step."""


class Forward:
    """A transformers model that computes batches of rows.

    Args:
        model: the loaded model, in evaluation mode.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        pad_id: the token that fills rows up.
    """

    def __init__(self, model: Any, tokenizer: Any, eos_ids: frozenset[int], pad_id: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self._pad_id = pad_id
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        self._cache = caches.cache_name(model)
        self.tried_continues: bool | None = None
        self.tried_pads: bool | None = None
        self.tried_leaves: bool | None = None

    @property
    def device(self) -> torch.device:
        """Return where inputs go."""
        device: torch.device = self.model.device
        return device

    def continues(self, tokens: Tokens) -> bool:
        """Return whether rows may share the cache of a prefix; tried out with the first tokens that it is asked for."""
        if self.tried_continues is None:
            self.tried_continues = caches.continues(self.model, self._cache, tokens)
        return self.tried_continues

    def pads(self, tokens: Tokens) -> bool:
        """Return whether prompts of different length may be continued together; tried out likewise."""
        if self.tried_pads is None:
            self.tried_pads = caches.pads(self.model, self._cache, tokens, self._pad_id)
        return self.tried_pads

    def leaves(self, tokens: Tokens) -> bool:
        """Return whether rows may leave a generation before it ends; tried out likewise."""
        if self.tried_leaves is None:
            self.tried_leaves = caches.leaves(self.model, self._cache, tokens)
        return self.tried_leaves

    def logits_fit(self, rows: Sequence[Row]) -> int:
        """Return how many of the first rows may be computed at once for their logits to fit; one always may."""
        columns: set[int] = set()
        for count, wanted in enumerate(positions(rows, 0)):
            columns |= set(wanted)
            if count and 4 * self._vocabulary * len(columns) * (count + 1) > LOGIT_BYTES:
                return count
        return len(rows)

    @torch.inference_mode()
    def _logits(self, keep: list[int], **inputs: Any) -> torch.Tensor:
        """Return the logits at some positions, shape (rows, positions, vocabulary)."""
        # The positions stay on the CPU: of a model on several GPUs nobody here knows which one has the head.
        index = torch.tensor(keep)
        if self._keeps_logits:
            kept: torch.Tensor = self.model(**inputs, logits_to_keep=index).logits
            return kept
        logits: torch.Tensor = self.model(**inputs).logits
        return logits[:, index]

    @torch.inference_mode()
    def prefill(self, tokens: Tokens) -> Any:
        """Return the cache of a prefix, one row."""
        more = {"logits_to_keep": 1} if self._keeps_logits else {}
        output = self.model(input_ids=torch.tensor([tokens], device=self.device), use_cache=True, **more)
        return getattr(output, self._cache)

    @torch.inference_mode()
    def score(self, rows: Sequence[Row], shared: int = 0, past: Any = None) -> list[Values]:
        """Return what rows want, computed in one pass.

        Rows are padded on the right, where no earlier position attends to the padding and no state has seen it yet: no mask
        is needed, and positions stay next to each other behind the shared prefix.

        Args:
            rows: the rows.
            shared: how many of their first tokens are in `past`.
            past: the cache of these tokens, one row.
        """
        width = max(map(len, rows)) - shared
        ids = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        for line, row in enumerate(rows):
            ids[line, : len(row) - shared] = torch.tensor(row.tokens[shared:], dtype=torch.long)
        wanted = positions(rows, shared)
        keep = sorted(set(chain.from_iterable(wanted)))
        column = {position: i for i, position in enumerate(keep)}
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device), "use_cache": past is not None}
        if past is not None:
            inputs[self._cache] = caches.repeated(past, len(rows))
        logits = self._logits(keep, **inputs)
        return [
            _values(logits[line], [column[p] for p in at], row.wanted)
            for line, (row, at) in enumerate(zip(rows, wanted, strict=True))
        ]

    @torch.inference_mode()
    def generate(self, batch: Sequence[Request]) -> list[Answer]:
        """Texts, greedy or drawn, of requests that are drawn and end in one way.

        Prompts are padded on the left: every row's last token stands in the last column, where generation continues. Rows that
        have ended leave the batch every `PIECE` tokens; where the model's cache does not allow it, when all have.
        """
        width = max(r.prompt_tokens for r in batch)
        ids = torch.full((len(batch), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for line, request in enumerate(batch):
            ids[line, width - request.prompt_tokens :] = torch.tensor(request.prompt, dtype=torch.long)
            mask[line, width - request.prompt_tokens :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        leave = (len(batch) > 1 or bool(batch[0].until)) and self.leaves(batch[0].prompt)
        more: dict[str, Any] = {}
        if batch[0].until and not leave:
            more = {"stop_strings": list(batch[0].until), "tokenizer": self.tokenizer}
        if batch[0].stop is not None:
            more["eos_token_id"] = sorted({*self.eos_ids, batch[0].stop})
        draw = processors(batch, self.device)
        open_, found = list(range(len(batch))), dict[int, Answer]()
        while open_:
            steps = width + max(batch[i].max_tokens for i in open_) - ids.shape[1]
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=min(steps, PIECE) if leave else steps,
                logits_processor=draw,
                return_dict_in_generate=True,
                **more,
            )
            new = output.sequences[:, width:].tolist()
            for request, tokens, i in zip([batch[i] for i in open_], new, open_, strict=True):
                if (answer := self._ended(request, tokens)) is not None:
                    found[i] = answer
            stay = [line for line, i in enumerate(open_) if i not in found]
            open_ = [open_[line] for line in stay]
            if open_:
                mask = torch.nn.functional.pad(mask, (0, output.sequences.shape[1] - ids.shape[1]), value=1)
                ids, cache = output.sequences, output.past_key_values
                if len(stay) < len(ids):
                    kept = torch.tensor(stay, device=self.device)
                    ids, mask = ids[kept], mask[kept]
                    cache.reorder_cache(kept)
                    keep_rows(draw, stay)
                more[self._cache] = cache
        caches.forget(self.model)
        return [found[i] for i in range(len(batch))]

    def _ended(self, request: Request, tokens: list[int]) -> Answer | None:
        """Return the answer that generated tokens make; None where it goes on."""
        answer = finish(request, tokens[: request.max_tokens], self.eos_ids, self.tokenizer)
        if answer.finish == "length" and len(tokens) < request.max_tokens:
            return None
        if not request.until:
            return answer
        # What was generated behind a text that ends the answer may hold another one, which began before it.
        tokens = tokens[: request.max_tokens]
        while tokens and (shorter := finish(request, tokens[:-1], self.eos_ids, self.tokenizer)).finish == "stop":
            answer, tokens = shorter, tokens[:-1]
        return answer


def _values(logits: torch.Tensor, columns: list[int], wanted: Sequence[Tokens]) -> Values:
    """Return the log-probabilities of the wanted tokens at some columns of a row's logits, some columns at a time."""
    size = max(1, LOGIT_BYTES // (4 * logits.shape[-1]))
    values: Values = []
    for start in range(0, len(columns), size):
        part, tokens = columns[start : start + size], wanted[start : start + size]
        rows = logits[part].float()
        flat = [(i, token) for i, those in enumerate(tokens) for token in those]
        line, token = torch.tensor(flat, dtype=torch.long).reshape(-1, 2).to(rows.device).T
        found = iter((rows[line, token] - rows.logsumexp(dim=-1)[line]).tolist())
        tops = rows.argmax(dim=-1).tolist()
        values += [({token: next(found) for token in those}, top) for those, top in zip(tokens, tops, strict=True)]
    return values
