"""The HF engine: transformers models, batches of about equal length, one forward pass for all labels of a question."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from darumeru.engines.base import Engine, EngineOptions, too_long
from darumeru.engines.hf.batches import shared_prefixes, shares_prompt
from darumeru.engines.hf.rows import Row, Values, answer_of, rows_of
from darumeru.requests import Answer, Request

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_OWN_ARGS = ("batch_tokens", "attn_implementation", "device_map", "load_in_4bit", "load_in_8bit", "quantization_config")


class HFEngine(Engine):
    """A transformers model in this process.

    Args:
        model: the loaded model. It is put into evaluation mode and loses its authors' generation settings; see
            `darumeru.watch.memory.untouched` where it must stay as it is.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        options: of these `exact`, and `model_args["batch_tokens"]`.
    """

    name = "hf"
    distributions = ("transformers",)
    auto_priority = 1

    def __init__(self, model: Any, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        import transformers

        from darumeru.engines.hf.forward import Forward
        from darumeru.engines.hf.memory import budget_of

        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        asked = options.model_args.get("batch_tokens")
        self.budget = budget_of(model, self.device, int(asked) if asked else None, exact=options.exact)
        self.model.eval()
        # Settings of the model's authors for chatting (penalties, temperatures) must not leak into a greedy answer.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(eos_ids),
            pad_token_id=self._pad_id,
            use_cache=True,
            disable_compile=True,  # transformers compiles some caches on a GPU, anew for every shape of a batch
        )
        self.forward = Forward(model, tokenizer, eos_ids, self._pad_id)

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return `batch_tokens` and some of `from_pretrained`."""
        return _OWN_ARGS

    @classmethod
    def spread(cls, devices: int) -> dict[str, Any]:
        """See `Engine.spread`: some layers on each device."""
        return {"device_map": "auto"}

    @classmethod
    def load(cls, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> HFEngine:
        """An engine for a model folder.

        Args:
            model: the folder.
            tokenizer: its tokenizer.
            eos_ids: the tokens that end an answer.
            options: how to load it; `model_args` are `batch_tokens`, `load_in_4bit` and `load_in_8bit` (bitsandbytes) and, for
                `from_pretrained`, `attn_implementation`, `device_map`, `quantization_config`.

        Raises:
            UserError: an unknown model argument, a device that is not there, or no language model.
            DarumeruError: transformers cannot load the model.
        """
        from darumeru.engines.hf.loading import load_model

        cls.check_args(options.model_args)
        return cls(load_model(model, options), tokenizer, eos_ids, options)

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else min(self.eos_ids, default=0)

    @property
    def device(self) -> torch.device:
        """Return where inputs go."""
        device: torch.device = self.model.device
        return device

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        import torch
        import transformers

        return {
            "engine": self.name,
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "batch_tokens": self.budget.generated,
            "attn_implementation": self.model.config._attn_implementation,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def close(self) -> None:
        """Free the model's memory."""
        import gc

        import torch

        del self.model, self.forward
        gc.collect()  # modules refer to each other in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # -- batches ------------------------------------------------------------------------------------------------------

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. The batches are those of all requests, whichever of them are done."""
        faults = {r.id: fault for r in requests if (fault := too_long(r, self.options.context_len))}
        if refused := [fault for id_, fault in faults.items() if id_ not in done]:
            yield refused
        requests = [r for r in requests if r.id not in faults]
        choices = [r for r in requests if r.kind == "choose"]
        for shared, group in [(0, choices)] if self.options.exact else shared_prefixes(choices):
            yield from self._scored(group, shared, done)
        yield from self._generated([r for r in requests if r.kind == "generate"], done)
        others = [r for r in requests if r.kind in ("rank", "likelihood")]
        yield from self._scored([r for r in others if not shares_prompt(r)], 0, done)
        for request in others:
            if shares_prompt(request):
                yield from self._scored([request], request.prompt_tokens - 1, done)

    def _scored(self, group: Sequence[Request], shared: int, done: Container[str]) -> Iterator[list[Answer]]:
        """Yield the answers to requests whose prompts share so many first tokens."""
        if all(r.id in done for r in group):
            return
        past = None
        if shared and self.forward.continues(group[0].prompt):
            past = self._attempt(lambda: self.forward.prefill(group[0].prompt[:shared]))
        if past is None:
            shared = 0
        rows = sorted((row for r in group for row in rows_of(r)), key=lambda r: (-len(r), r.request.id, r.index))
        missing = {r.id: len(rows_of(r)) for r in group}
        found: dict[str, dict[int, Values]] = {r.id: {} for r in group}

        def fits(start: int) -> int:
            most = self.budget.rows(len(rows[start]) - shared, shared)
            return self.forward.logits_fit(rows[start : start + most])

        def score(part: Sequence[Row]) -> list[Values]:
            return self.forward.score(part, shared, past)

        for part, values in self._batched(rows, fits, score, lambda r: len(r), lambda r: r.request.id, done):
            ready = []
            if values is None:
                request = part[0].request
                if found.pop(request.id, None) is not None:
                    ready.append(_too_long(request, len(part[0])))
                values = []
            for row, value in zip(part, values, strict=False):
                request = row.request
                if request.id not in found:
                    continue  # another of its rows did not fit
                found[request.id][row.index] = value
                if len(found[request.id]) == missing[request.id]:
                    ready.append(answer_of(request, found.pop(request.id)))
            if ready := [a for a in ready if a.id not in done]:
                yield ready

    def _generated(self, requests: Sequence[Request], done: Container[str]) -> Iterator[list[Answer]]:
        """Yield generated texts; prompts of different length go together where padding changes nothing."""
        if all(r.id in done for r in requests):
            return
        lengths = {r.prompt_tokens for r in requests}
        pads = len(lengths) == 1 or self.forward.pads(max(requests, key=lambda r: r.prompt_tokens).prompt)
        if not pads:
            log.warning(
                "Padding changes what this model generates: only prompts of equal length are continued together."
            )

        def cost(request: Request) -> int:
            return request.prompt_tokens + request.max_tokens

        ordered = sorted(requests, key=lambda r: (0 if pads else -r.prompt_tokens, -cost(r), r.max_tokens, r.id))

        def fits(start: int) -> int:
            first = ordered[start]
            count, widest, most = 1, first.prompt_tokens, first.max_tokens
            # As many batches as it takes, equally full: a small last one would leave the others more padding for nothing.
            rest, room = len(ordered) - start, self.budget.rows(cost(first), generates=True)
            for request in ordered[start + 1 : start + ceil(rest / ceil(rest / room))]:
                widest, most = max(widest, request.prompt_tokens), max(most, request.max_tokens)
                if _alike(request) != _alike(first) or not (pads or request.prompt_tokens == widest):
                    break
                if widest + most > (self.options.context_len or widest + most):
                    break  # the longest prompt would go on beyond the context while another one's answer is not complete
                count += 1
            return count

        for part, answers in self._batched(ordered, fits, self.forward.generate, cost, lambda r: r.id, done):
            found = [_too_long(part[0], part[0].prompt_tokens)] if answers is None else answers
            if ready := [a for a in found if a.id not in done]:
                yield ready

    def _batched(
        self,
        items: Sequence[Item],
        fits: Callable[[int], int],
        compute: Callable[[Sequence[Item]], list[Result]],
        width: Callable[[Item], int],
        id_of: Callable[[Item], str],
        done: Container[str],
    ) -> Iterator[tuple[Sequence[Item], list[Result] | None]]:
        """Yield batch after batch with its results; an item that does not even fit alone, with None.

        Args:
            items: what to compute, the widest first.
            fits: how many of the items from a place on go into the next batch.
            compute: what computes a batch.
            width: an item's tokens.
            id_of: its request.
            done: requests that need no answer. With `exact` they are computed again, for the others' sake.
        """
        start = 0
        while start < len(items):
            count = fits(start)
            part = items[start : start + count]
            todo = [i for i in part if id_of(i) not in done]
            if todo and self.options.exact:
                todo = list(part)
            if todo:
                results = self._attempt(lambda: compute(todo))  # noqa: B023
                if results is None and len(todo) > 1:
                    self.budget.failed(len(todo), max(map(width, todo)))
                    log.warning("Out of memory: going on with batches of at most %d tokens.", self.budget.held)
                    continue
                yield todo, results
            start += count

    def _attempt(self, compute: Callable[[], Result]) -> Result | None:
        """Return what `compute` returns; None if memory runs out, all of it free again."""
        try:
            return compute()
        except Exception as error:
            from darumeru.engines.hf.memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
        # Here the error and what its frames hold are gone.
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        return None


def _alike(request: Request) -> tuple[Any, ...]:
    """Return what the requests of a batch must have in common to be generated together."""
    return request.until, request.stop, request.sampling


def _too_long(request: Request, tokens: int) -> Answer:
    """Say that one row of so many tokens takes more memory than there is."""
    fault = (
        f"out of memory on one prompt of {tokens} tokens ({request.id}); "
        "use a lower --max-prompt-len, a smaller --dtype or another device"
    )
    return Answer(request.id, error=fault)
