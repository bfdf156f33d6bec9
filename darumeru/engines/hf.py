"""The HF engine: transformers models, batches of about equal length, one forward pass for all labels of a question."""

from __future__ import annotations

import importlib.util
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

CPU_PREFILL_TOKENS = 512
"""Where nothing is generated, padded tokens of a batch on a CPU: larger ones only add padding (`benchmarks/engines.py`)."""

SHARED_TOKENS = 64
"""A common beginning of at least so many tokens is computed once for all prompts that have it."""

LOGIT_BYTES = 1 << 28
"""The most memory that the logits of a batch may take."""

_OWN_ARGS = ("batch_tokens", "attn_implementation", "device_map", "quantization_config")


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

    def __init__(self, model: Any, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        import transformers

        self.model = model
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        usual = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        self.batch_tokens = int(options.model_args.get("batch_tokens", usual))
        self.model.eval()
        # Settings of the model's authors for chatting (penalties, temperatures) must not leak into a greedy answer.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(eos_ids), pad_token_id=self._pad_id, use_cache=True
        )
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    @classmethod
    def load(cls, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> HFEngine:
        """An engine for a model folder.

        Args:
            model: the folder.
            tokenizer: its tokenizer.
            eos_ids: the tokens that end an answer.
            options: how to load it; `model_args` are `batch_tokens` and, for `from_pretrained`, `attn_implementation`,
                `device_map`, `quantization_config`.

        Raises:
            UserError: an unknown model argument, or a device that is not there.
            DarumeruError: transformers cannot load the model.
        """
        import transformers

        for key in options.model_args:
            if key not in _OWN_ARGS:
                from darumeru.errors import unknown

                raise unknown("--model-args key for the hf engine", key, _OWN_ARGS)
        args = {k: v for k, v in options.model_args.items() if k != "batch_tokens"}
        device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("There is no GPU that PyTorch can use here. Use --device cpu.")
        dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
        try:
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                model, dtype=dtype, trust_remote_code=options.trust_remote_code, use_safetensors=True, **args
            )
            if options.adapter:
                add_adapter(loaded, options.adapter)
            if "device_map" not in args:
                loaded = loaded.to(device)
        except torch.OutOfMemoryError as error:
            raise DarumeruError(f"The model does not fit on '{device}': {error}") from None
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise DarumeruError(f"transformers cannot load '{model}': {str(error).splitlines()[0]}") from error
        return cls(loaded, tokenizer, eos_ids, options)

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
        choices = [r for r in requests if r.kind == "choose"]
        for shared, group in [(0, choices)] if self.options.exact else shared_prefixes(choices):
            past: list[Any] = []  # the beginning is computed when the first batch needs it

            def choose(batch: list[Request], shared: int = shared, past: list[Any] = past) -> list[Answer]:
                if shared and not past:
                    past.append(self._prefill(batch[0].prompt[:shared]))
                return self._choose(batch, shared, past[0] if past else None)

            yield from self._batched(choose, group, lambda r: len(r.prompt) - shared + _depth(r), done)  # noqa: B023
        generate = [r for r in requests if r.kind == "generate"]
        yield from self._batched(self._generate, generate, lambda r: len(r.prompt) + r.max_tokens, done)
        for request in requests:
            if request.kind in ("rank", "likelihood") and request.id not in done:
                yield from self._halving(lambda batch: [self._score(batch[0])], [request])

    def _batched(
        self,
        answer: Callable[[list[Request]], list[Answer]],
        requests: list[Request],
        cost: Callable[[Request], int],
        done: Container[str],
    ) -> Iterator[list[Answer]]:
        for batch in self._batches(requests, cost):
            if todo := [r for r in batch if r.id not in done]:
                yield from self._halving(answer, todo)

    def _batches(self, requests: list[Request], cost: Callable[[Request], int]) -> Iterator[list[Request]]:
        """Requests of about equal cost together, the costliest first, at most `batch_tokens` padded tokens a batch."""
        most = self.batch_tokens
        if self.device.type == "cpu" and requests and requests[0].kind != "generate":
            most = min(most, CPU_PREFILL_TOKENS)
        batch: list[Request] = []
        for request in sorted(requests, key=lambda r: (-cost(r), r.max_tokens, r.id)):
            if batch and (cost(batch[0]) * (len(batch) + 1) > most or request.until != batch[0].until):
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
        """Left-padded inputs: every row's last token stands in the last column, where generation goes on."""
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

    def _prefill(self, tokens: Tokens) -> Any:
        """The cache of a prompt or of its beginning, one row."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        self._logits(1, input_ids=torch.tensor([tokens], device=self.device), past_key_values=cache, use_cache=True)
        return cache

    def _choose(self, batch: list[Request], shared: int = 0, past: Any = None) -> list[Answer]:
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

        Rows are padded on the right: positions stay next to each other behind the shared beginning, which models with sliding
        windows need, and the padding is never attended to.
        """
        import copy

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


def add_adapter(model: Any, adapter: Path) -> None:
    """Apply a LoRA adapter to a model, beside its weights: merged into bfloat16 weights, most of it would be rounded away.

    Raises:
        UserError: PEFT is not installed, or the adapter belongs to another model.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError("A LoRA adapter on the hf engine needs PEFT: pip install 'darumeru[adapter]'.")
    try:
        model.load_adapter(str(adapter))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"Adapter '{adapter}' does not fit this model; was it trained on another base? ({reason})"
        ) from None


def shared_prefixes(requests: list[Request]) -> list[tuple[int, list[Request]]]:
    """Requests whose prompts begin alike, with the length of that beginning; 0 for those that share too little.

    The prompts in lexicographic order: neighbours have the longest common beginnings. A group grows while it keeps at least
    half of its common beginning, and never takes a prompt's last token, which has to be computed anew for its logits.
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

    for request in sorted(requests, key=lambda r: (r.prompt, r.id)):
        limit = len(request.prompt) - 1
        common = _common(group[0].prompt, request.prompt, min(shared, limit)) if group else 0
        if group and common >= max(SHARED_TOKENS, shared // 2 if len(group) > 1 else 0):
            group.append(request)
            shared = common
        else:
            close()
            group, shared = [request], limit
    close()
    return [*groups, (0, alone)]


def _common(a: Tokens, b: Tokens, most: int) -> int:
    """How many tokens two sequences begin with alike, at most `most`."""
    for i in range(most):
        if a[i] != b[i]:
            return i
    return most


def _depth(request: Request) -> int:
    return max(len(s) for label in request.labels for s in label) - 1
