"""The HF engine: transformers models, batches of about equal length, one forward pass for all labels of a question."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from darumeru.engines.base import Engine, EngineOptions, finish, label_logprobs, label_tree
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request, Tokens

log = logging.getLogger(__name__)

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Padded tokens of a batch, by device."""

_OWN_ARGS = ("batch_tokens", "attn_implementation", "device_map", "quantization_config")


class HFEngine(Engine):
    """A transformers model in this process.

    Args:
        model: a model folder.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        options: how to load it; `model_args` are `batch_tokens` and, for `from_pretrained`, `attn_implementation`,
            `device_map`, `quantization_config`.

    Raises:
        UserError: an unknown model argument, or a device that is not there.
        DarumeruError: transformers cannot load the model.
    """

    name = "hf"

    def __init__(self, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        import transformers

        args = dict(options.model_args)
        for key in args:
            if key not in _OWN_ARGS:
                from darumeru.errors import unknown

                raise unknown("--model-args key for the hf engine", key, _OWN_ARGS)
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("There is no GPU that PyTorch can use here. Use --device cpu.")
        self.batch_tokens = int(args.pop("batch_tokens", BATCH_TOKENS[device]))
        dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
        try:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(
                model, dtype=dtype, trust_remote_code=options.trust_remote_code, use_safetensors=True, **args
            )
            if "device_map" not in args:
                self.model = self.model.to(device)
        except torch.OutOfMemoryError as error:
            raise DarumeruError(f"The model does not fit on '{device}': {error}") from None
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise DarumeruError(f"transformers cannot load '{model}': {str(error).splitlines()[0]}") from error
        self.model.eval()
        # Settings of the model's authors for chatting (penalties, temperatures) must not leak into a greedy answer.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(eos_ids), pad_token_id=self._pad_id, use_cache=True
        )
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.eos_ids, default=0)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = self.model.device
        return device

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        import transformers

        return {
            "engine": self.name,
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "batch_tokens": self.batch_tokens,
            "attn_implementation": self.model.config._attn_implementation,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def close(self) -> None:
        """Free the model's memory."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # -- batches ------------------------------------------------------------------------------------------------------

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. The batches are those of all requests, whichever of them are done."""
        kinds: dict[str, tuple[Callable[[list[Request]], list[Answer]], Callable[[Request], int]]] = {
            "choose": (self._choose, lambda r: len(r.prompt) + _depth(r)),
            "generate": (self._generate, lambda r: len(r.prompt) + r.max_tokens),
        }
        for kind, (answer, cost) in kinds.items():
            for batch in self._batches([r for r in requests if r.kind == kind], cost):
                if todo := [r for r in batch if r.id not in done]:
                    yield from self._halving(answer, todo)
        for request in requests:
            if request.kind in ("rank", "likelihood") and request.id not in done:
                yield [self._score(request)]

    def _batches(self, requests: list[Request], cost: Callable[[Request], int]) -> Iterator[list[Request]]:
        """Requests of about equal cost together, the costliest first, at most `batch_tokens` padded tokens a batch."""
        batch: list[Request] = []
        for request in sorted(requests, key=lambda r: (-cost(r), r.max_tokens, r.id)):
            if batch and (cost(batch[0]) * (len(batch) + 1) > self.batch_tokens or request.until != batch[0].until):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch

    def _halving(self, answer: Callable[[list[Request]], list[Answer]], batch: list[Request]) -> Iterator[list[Answer]]:
        """The answers to a batch; out of memory, to its halves."""
        try:
            result = answer(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                fault = (
                    f"out of memory on one prompt of {batch[0].prompt_tokens} tokens ({batch[0].id}); "
                    "use a lower --max-prompt-len, a smaller --dtype or another device"
                )
                yield [Answer(batch[0].id, error=fault)]
                return
            result = None
        if result is not None:
            yield result
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_tokens //= 2
        log.warning("Out of memory: going on with batches of at most %d tokens.", self.batch_tokens)
        middle = len(batch) // 2
        yield from self._halving(answer, batch[:middle])
        yield from self._halving(answer, batch[middle:])

    # -- the operations -----------------------------------------------------------------------------------------------

    def _padded(self, rows: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Left-padded inputs: every row's last token stands in the last column."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask[i, width - len(row) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return {k: v.to(self.device) for k, v in inputs.items()}

    @torch.inference_mode()
    def _logits(self, keep: int, **inputs: Any) -> Any:
        """The model's output with logits for the last `keep` positions only."""
        if self._keeps_logits:
            return self.model(**inputs, logits_to_keep=keep)
        output = self.model(**inputs)
        output.logits = output.logits[:, -keep:]
        return output

    def _choose(self, batch: list[Request]) -> list[Answer]:
        """Labels' log-probabilities; a row is a prompt with one longest proper prefix of its labels' spellings."""
        rows: list[Tokens] = []
        owners: list[tuple[int, Tokens]] = []
        trees = [label_tree(r.labels) for r in batch]
        for index, (request, tree) in enumerate(zip(batch, trees, strict=True)):
            for prefix in tree:
                if not any(len(p) > len(prefix) and p[: len(prefix)] == prefix for p in tree):
                    rows.append(request.prompt + prefix)
                    owners.append((index, prefix))
        keep = 1 + max(len(prefix) for _, prefix in owners)
        logits = self._logits(keep, **self._padded(rows), use_cache=False).logits.float()
        logprobs = torch.log_softmax(logits, dim=-1)
        found: list[dict[Tokens, dict[int, float]]] = [{} for _ in batch]
        for row, (index, prefix) in enumerate(owners):
            for depth in range(len(prefix) + 1):
                wanted = trees[index].get(prefix[:depth])
                if wanted is not None and prefix[:depth] not in found[index]:
                    values = logprobs[row, keep - 1 - len(prefix) + depth, list(wanted)].tolist()
                    found[index][prefix[:depth]] = dict(zip(wanted, values, strict=True))
        return [Answer(r.id, logprobs=label_logprobs(r.labels, f)) for r, f in zip(batch, found, strict=True)]

    @torch.inference_mode()
    def _score(self, request: Request) -> Answer:
        """Continuations of one prompt: the prompt is computed once, its cache serves all of them."""
        from transformers import DynamicCache

        prompt = torch.tensor([request.prompt], device=self.device)
        cache = DynamicCache(config=self.model.config)
        head = self._logits(1, input_ids=prompt, past_key_values=cache, use_cache=True).logits[:, -1].float()
        first = torch.log_softmax(head, dim=-1)[0]
        sums: list[float] = []
        greedy: list[bool] = []
        limit = max(1, self.batch_tokens // max(1, max(map(len, request.continuations))))
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
        import copy

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
    def _generate(self, batch: list[Request]) -> list[Answer]:
        """Greedy texts; the batch stops when all its rows have ended."""
        inputs = self._padded([r.prompt for r in batch])
        inputs.pop("position_ids")
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


def _depth(request: Request) -> int:
    return max(len(s) for label in request.labels for s in label) - 1
