"""Forward passes of a transformers model: what they say to requests of each kind."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from darumeru.engines.base import finish, label_logprobs, label_tree
from darumeru.requests import Answer, Request, Tokens

LOGIT_BYTES = 1 << 28
"""The most memory that the logits of a batch may take."""


class Forward:
    """A transformers model that computes batches of requests.

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

    @property
    def device(self) -> torch.device:
        """Return where inputs go."""
        device: torch.device = self.model.device
        return device

    def _padded(self, rows: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Left-padded inputs: every row's last token stands in the last column, where generation continues."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[i, width - len(row) :] = 1
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    @torch.inference_mode()
    def _logits(self, keep: int | torch.Tensor, **inputs: Any) -> Any:
        """The model's output with logits for the last `keep` positions, or for the positions `keep`, only."""
        if self._keeps_logits:
            return self.model(**inputs, logits_to_keep=keep)
        output = self.model(**inputs)
        output.logits = output.logits[:, -keep:] if isinstance(keep, int) else output.logits[:, keep]
        return output

    def prefill(self, tokens: Tokens) -> Any:
        """The cache of a prompt or of its prefix, one row."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        self._logits(1, input_ids=torch.tensor([tokens], device=self.device), past_key_values=cache, use_cache=True)
        return cache

    def choose(self, batch: list[Request], shared: int = 0, past: Any = None) -> list[Answer]:
        """Labels' log-probabilities; a row is a prompt with one longest proper prefix of its labels' spellings.

        Args:
            batch: the requests.
            shared: how many tokens of all prompts are in `past`.
            past: the cache of these tokens, one row.
        """
        rows: list[Tokens] = []
        owners: list[tuple[int, Tokens]] = []
        trees = [label_tree(r.labels) for r in batch]
        for index, (request, tree) in enumerate(zip(batch, trees, strict=True)):
            for prefix in tree:
                if not any(len(p) > len(prefix) and p[: len(prefix)] == prefix for p in tree):
                    rows.append(request.prompt[shared:] + prefix)
                    owners.append((index, prefix))
        # Where each row's last prompt token stands; the tokens behind it belong to the label.
        ends = [len(row) - 1 - len(prefix) for row, (_, prefix) in zip(rows, owners, strict=True)]
        found: list[dict[Tokens, dict[int, float]]] = [{} for _ in batch]
        for part in self._logit_parts(ends, [len(prefix) for _, prefix in owners]):
            columns, logits = self._row_logits(
                [rows[i] for i in part], [ends[i] for i in part], owners, part, shared, past
            )
            for line, i in enumerate(part):
                index, prefix = owners[i]
                for depth in range(len(prefix) + 1):
                    wanted = trees[index].get(prefix[:depth])
                    if wanted is not None and prefix[:depth] not in found[index]:
                        values = torch.log_softmax(logits[line, columns[ends[i] + depth]].float(), dim=-1)[list(wanted)]
                        found[index][prefix[:depth]] = dict(zip(wanted, values.tolist(), strict=True))
        return [Answer(r.id, logprobs=label_logprobs(r.labels, f)) for r, f in zip(batch, found, strict=True)]

    def _logit_parts(self, ends: list[int], depths: list[int]) -> Iterator[list[int]]:
        """Rows of about equal length together, as many as `LOGIT_BYTES` allows the logits of."""
        vocabulary = int(self.model.get_output_embeddings().weight.shape[0])
        part: list[int] = []
        columns: set[int] = set()
        for i in sorted(range(len(ends)), key=lambda i: (ends[i], i)):
            wider = columns | set(range(ends[i], ends[i] + depths[i] + 1))
            if part and 4 * vocabulary * len(wider) * (len(part) + 1) > LOGIT_BYTES:
                yield part
                part, wider = [], set(range(ends[i], ends[i] + depths[i] + 1))
            part.append(i)
            columns = wider
        if part:
            yield part

    def _row_logits(
        self,
        rows: list[Tokens],
        ends: list[int],
        owners: list[tuple[int, Tokens]],
        part: list[int],
        shared: int,
        past: Any,
    ) -> tuple[dict[int, int], torch.Tensor]:
        """Logits of some rows at the positions that any of them needs, and at which column each position is found.

        Rows are padded on the right: positions stay next to each other behind the shared prefix, which models with sliding
        windows need, and the padding is never attended to.
        """
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), shared + width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : shared + len(row)] = 1
        wanted = sorted({p for end, i in zip(ends, part, strict=True) for p in range(end, end + len(owners[i][1]) + 1)})
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if past is not None:
            cache = copy.deepcopy(past)
            cache.batch_repeat_interleave(len(rows))
            inputs |= {"past_key_values": cache}
        output = self._logits(torch.tensor(wanted, device=self.device), **inputs, use_cache=past is not None)
        return {position: column for column, position in enumerate(wanted)}, output.logits

    @torch.inference_mode()
    def score(self, request: Request, batch_tokens: int) -> Answer:
        """Continuations of one prompt: the prompt is computed once, its cache serves all of them."""
        from transformers import DynamicCache

        prompt = torch.tensor([request.prompt], device=self.device)
        cache = DynamicCache(config=self.model.config)
        head = self._logits(1, input_ids=prompt, past_key_values=cache, use_cache=True).logits[:, -1].float()
        first = torch.log_softmax(head, dim=-1)[0]
        sums: list[float] = []
        greedy: list[bool] = []
        limit = max(1, batch_tokens // max(1, max(map(len, request.continuations))))
        size = max(1, min(limit, len(request.continuations)))
        for start in range(0, len(request.continuations), size):
            part = request.continuations[start : start + size]
            values, tops = self._score_part(request.prompt, first, cache, part)
            sums += values
            greedy += tops
        if request.kind == "likelihood":
            return Answer(request.id, logprobs=tuple(sums), greedy=tuple(greedy))
        means = (s / len(c) for s, c in zip(sums, request.continuations, strict=True))
        return Answer(request.id, logprobs=tuple(means))

    def _score_part(
        self, prompt: Tokens, first: torch.Tensor, cache: Any, part: Sequence[Tokens]
    ) -> tuple[list[float], list[bool]]:
        """Summed log-probabilities of some continuations, and whether each is the greedy one."""
        sums = [float(first[c[0]]) for c in part]
        greedy = [int(first.argmax()) == c[0] for c in part]
        width = max(map(len, part)) - 1
        if width == 0:
            return sums, greedy
        ids = torch.full((len(part), width), self._pad_id, dtype=torch.long)
        mask = torch.ones((len(part), len(prompt) + width), dtype=torch.long)
        for i, c in enumerate(part):
            ids[i, : len(c) - 1] = torch.tensor(c[:-1], dtype=torch.long)
            mask[i, len(prompt) + len(c) - 1 :] = 0
        past = copy.deepcopy(cache)
        past.batch_repeat_interleave(len(part))
        logits = self._logits(
            width,
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            past_key_values=past,
            use_cache=True,
        ).logits
        for i, c in enumerate(part):
            if len(c) > 1:
                rows = torch.log_softmax(logits[i, : len(c) - 1].float(), dim=-1)
                after = torch.tensor(c[1:], device=rows.device)
                sums[i] += float(rows.gather(1, after[:, None]).sum())
                greedy[i] = greedy[i] and bool((rows.argmax(dim=-1) == after).all())
        return sums, greedy

    @torch.inference_mode()
    def generate(self, batch: list[Request]) -> list[Answer]:
        """Greedy texts; the batch stops when all its rows have ended."""
        inputs = self._padded([r.prompt for r in batch])
        limit = max(r.max_tokens for r in batch)
        stop: dict[str, Any] = {}
        if batch[0].until:
            stop = {"stop_strings": list(batch[0].until), "tokenizer": self.tokenizer}
        output = self.model.generate(**inputs, max_new_tokens=limit, **stop)
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [
            finish(r, tokens[: r.max_tokens], self.eos_ids, self.tokenizer)
            for r, tokens in zip(batch, new, strict=True)
        ]
