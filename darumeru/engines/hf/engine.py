"""The HF engine: transformers models, batches of about equal length, one forward pass for all labels of a question."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.engines.base import Engine, EngineOptions
from darumeru.engines.hf.batches import BATCH_TOKENS, batch_tokens_of, batches, shared_prefixes
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

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
    distributions = ("transformers",)
    auto_priority = 1

    def __init__(self, model: Any, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        import transformers

        from darumeru.engines.hf.forward import Forward

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
        self.forward = Forward(model, tokenizer, eos_ids, self._pad_id)

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return `batch_tokens` and some of `from_pretrained`."""
        return _OWN_ARGS

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
        import torch
        import transformers

        cls.check_args(options.model_args)
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
            "batch_tokens": self.batch_tokens,
            "attn_implementation": self.model.config._attn_implementation,
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def close(self) -> None:
        """Free the model's memory."""
        import torch

        del self.model, self.forward
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # -- batches ------------------------------------------------------------------------------------------------------

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. The batches are those of all requests, whichever of them are done."""
        choices = [r for r in requests if r.kind == "choose"]
        for shared, group in [(0, choices)] if self.options.exact else shared_prefixes(choices):
            past: list[Any] = []  # the prefix is computed when the first batch needs it

            def choose(batch: list[Request], shared: int = shared, past: list[Any] = past) -> list[Answer]:
                if shared and not past:
                    past.append(self.forward.prefill(batch[0].prompt[:shared]))
                return self.forward.choose(batch, shared, past[0] if past else None)

            yield from self._batched(choose, group, lambda r: r.prompt_tokens - shared + _depth(r), done)  # noqa: B023
        generate = [r for r in requests if r.kind == "generate"]
        yield from self._batched(self.forward.generate, generate, lambda r: r.prompt_tokens + r.max_tokens, done)
        for request in requests:
            if request.kind in ("rank", "likelihood") and request.id not in done:
                yield from self._halving(lambda batch: [self.forward.score(batch[0], self.batch_tokens)], [request])

    def _batched(
        self,
        answer: Callable[[list[Request]], list[Answer]],
        requests: list[Request],
        cost: Callable[[Request], int],
        done: Container[str],
    ) -> Iterator[list[Answer]]:
        if not requests:
            return
        most = batch_tokens_of(self.device.type, requests[0].kind, self.batch_tokens)
        for batch in batches(requests, cost, most):
            if todo := [r for r in batch if r.id not in done]:
                yield from self._halving(answer, todo)

    def _halving(self, answer: Callable[[list[Request]], list[Answer]], batch: list[Request]) -> Iterator[list[Answer]]:
        """Yield the answers to a batch; out of memory, to its halves."""
        import torch

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


def _depth(request: Request) -> int:
    return max(len(s) for label in request.labels for s in label) - 1
