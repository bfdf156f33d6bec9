"""Evaluating a model that is being trained, in its memory: nothing is saved, and afterwards everything is as it was."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darumeru.engines.base import EngineOptions
from darumeru.engines.hf import HFEngine
from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.inference.model import Model, tokenizer_sha256
from darumeru.requests import Answer, Request

_PIECE = 1 << 24
"""Values that are copied to the CPU at once for their fingerprint."""


@dataclass(frozen=True)
class LoadedModel(Model):
    """A model in memory, as `prepare` wants to know it."""

    digest: str = ""
    tokenizer_digest: str = ""
    generation_settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def weights_sha256(self) -> str:
        """Fingerprint of the parameters, see `weights_sha256`; a model folder's is over its files, so they differ."""
        return self.digest

    @cached_property
    def tokenizer_sha256(self) -> str:
        """That of the files that the tokenizer would be saved to, hence a checkpoint's."""
        return self.tokenizer_digest

    @cached_property
    def generation(self) -> dict[str, Any]:
        """See `Model.generation`."""
        return self.generation_settings


def loaded_model(name: str, model: Any, tokenizer: Any) -> LoadedModel:
    """Look at a transformers model in memory."""
    generation = getattr(model, "generation_config", None)
    return LoadedModel(
        name=name,
        path=Path(name),
        config=model.config.to_dict(),
        weights=(),
        parameters=sum(p.numel() for p in model.parameters()),
        digest=weights_sha256(model),
        tokenizer_digest=_tokenizer_digest(tokenizer),
        generation_settings=generation.to_dict() if generation is not None else {},
    )


def weights_sha256(model: Any) -> str:
    """Return the fingerprint of a model's parameters: of each one's name, type, shape and the SHA-256 of its bytes.

    Tied parameters count once. A piece at a time is copied to the CPU; several parameters are hashed at a time.
    """

    def digest(entry: tuple[str, torch.nn.Parameter]) -> list[Any]:
        name, parameter = entry
        sum_ = hashlib.sha256()
        flat = parameter.detach().reshape(-1)
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE].cpu().contiguous()
            sum_.update(piece.view(torch.uint8).numpy().data)
        return [name, str(parameter.dtype), list(parameter.shape), sum_.hexdigest()]

    with ThreadPoolExecutor(max_workers=4) as pool:
        return fingerprint(list(pool.map(digest, sorted(model.named_parameters(), key=lambda item: item[0]))))


def _tokenizer_digest(tokenizer: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return tokenizer_sha256(Path(folder))


def unwrapped(model: Any) -> Any:
    """Return the transformers model inside wrappers of PyTorch (DDP, DataParallel, compile) and of PEFT, adapters in place."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            model = model.module
        elif hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            model = model.get_base_model()
        else:
            return model


def refuse_sharded(model: Any) -> None:
    """See to it that this process has the whole model.

    Raises:
        UserError: its weights are spread over processes (FSDP, ZeRO-3, tensor parallelism).
    """
    from torch.distributed.tensor import DTensor

    kind = ""
    if any("FullyShardedDataParallel" in type(m).__name__ for m in model.modules()):
        kind = "FSDP"
    for parameter in model.parameters():
        if hasattr(parameter, "ds_id"):
            kind = "DeepSpeed ZeRO-3"
        elif isinstance(parameter, DTensor):
            kind = "FSDP or tensor parallelism"
    if kind:
        raise UserError(
            f"The weights are spread over processes ({kind}), so the model cannot be evaluated in memory. Leave out "
            "DarumeruCallback, save checkpoints, and evaluate them beside the training: "
            "darumeru watch CHECKPOINTS_DIR --suite darumeru-train."
        )


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Restore the model and the random numbers to what they were, whatever happens inside.

    Put back are: of each module the attributes (train mode, gradient checkpointing, generation settings, caches, patched
    methods), buffers with their content, which parameters want gradients, and the configuration; and the random states of Python,
    NumPy and PyTorch, on the CPU and on the model's GPUs. Parameters and gradients are only read. Inside, gradient checkpointing
    and modules' own compilation are off.
    """
    modules = list(model.modules())
    attributes = [(m, dict(m.__dict__)) for m in modules]
    buffers = [(m, dict(m._buffers)) for m in modules]
    contents = [(b, b.detach().clone()) for b in model.buffers()]
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    configs = {id(c): (c, dict(vars(c))) for m in modules if hasattr(c := m.__dict__.get("config"), "__dict__")}
    try:
        with same_random({p.device for p in model.parameters() if p.device.type == "cuda"}):
            for module in modules:
                for name, off in (("gradient_checkpointing", False), ("_compiled_call_impl", None)):
                    if module.__dict__.get(name):
                        setattr(module, name, off)
            yield
    finally:
        for module, before in attributes:
            _put_back(module.__dict__, before)
        for module, before in buffers:
            _put_back(module._buffers, before)
        with torch.no_grad():
            for buffer, content in contents:
                if not torch.equal(buffer, content):
                    buffer.copy_(content)
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for config, before in configs.values():
            _put_back(vars(config), before)


def _put_back(now: dict[str, Any], before: dict[str, Any]) -> None:
    now.clear()
    now.update(before)


@contextmanager
def same_random(gpus: Iterable[torch.device] = ()) -> Iterator[None]:
    """Restore the random numbers afterwards, as if none had been drawn: Python's, NumPy's, PyTorch's on the CPU and on `gpus`."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(gpus)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class MemoryEngine(HFEngine):
    """An engine on a model that is being trained; use it inside `untouched`.

    Args:
        autocast: the type to which the training casts, if it does: passes cast to it here too. accelerate casts in the
            outermost `forward` of the trained model only, which is PEFT's or DDP's and is not called here.
    """

    def __init__(
        self, model: Any, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions, autocast: str | None = None
    ) -> None:
        super().__init__(model, tokenizer, eos_ids, options)
        self._autocast = autocast

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return the only key: the training has decided all else."""
        return ("batch_tokens",)

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. The training's type holds while a batch is computed, not while its reader works."""
        batches = super().answers(requests, done)
        dtype = getattr(torch, self._autocast) if self._autocast else None
        while True:
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return super().describe() | {"in_memory": True, "autocast": self._autocast}
