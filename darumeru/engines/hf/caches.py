"""Caches: what may be done with a model's cache without changing its numbers, tried out on a few tokens.

transformers has caches of keys and values, of sliding windows, of states (linear attention, state-space layers), and mixtures.
Not every model goes on from a state with more than one token, and not every one keeps padding out of it: Jamba, Bamba and
Mamba begin such a pass with an empty state (transformers 5.19), without an error. No name or class of a model tells, so
each is asked.
"""

from __future__ import annotations

import copy
import inspect
import logging
from typing import Any

import torch

from darumeru.engines.hf.memory import is_out_of_memory
from darumeru.requests import Tokens

log = logging.getLogger(__name__)

_NAMES = ("past_key_values", "cache_params")
"""What models call their cache, as an argument and in their output."""

_TRIED = 48
"""Tokens that a cache is tried out with at most."""

_TAIL = 4
"""Of these, tokens that follow the cached ones."""

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Mean difference of log-probabilities over the vocabulary, in nats, up to which two ways to compute say the same."""

TOLERANCE_ROUNDED = 0.1
"""The same where a model computes in 16 bits and fewer: there the order of additions already shows."""

SHARE_ROUNDED = 0.05
"""There also of the logits' mean size: SmolLM2's are 3 to 18, and padding changes them by 0.03 to 0.23 in bfloat16, up to 4 %."""


def cache_name(model: Any) -> str:
    """Return what a model's forward pass calls its cache; empty where it takes none that is known here."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in _NAMES if name in parameters), "")


def repeated(cache: Any, rows: int) -> Any:
    """Return a cache of one row as one of so many equal rows, with memory of its own."""
    cache = copy.deepcopy(cache)
    cache.reorder_cache(torch.zeros(rows, dtype=torch.long))
    return cache


def forget(model: Any) -> None:
    """Have a model forget the generation before: Qwen's multimodal ones keep their rows' offsets for the next pass."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None


@torch.inference_mode()
def continues(model: Any, name: str, tokens: Tokens) -> bool:
    """Return whether rows may go on from a repeated cache with several tokens: the numbers are those without one.

    Args:
        model: the model, in evaluation mode.
        name: see `cache_name`.
        tokens: of a prompt, at least 8.
    """
    ids = torch.tensor([tokens[:_TRIED]], device=model.device)
    cached = ids.shape[1] - _TAIL
    if not name:
        return False
    try:
        want = model(input_ids=ids, use_cache=False).logits[0, -_TAIL:]
        cache = getattr(model(input_ids=ids[:, :cached], use_cache=True), name)
        if not _is_known(cache):
            return False
        tail = ids[:, cached:].repeat(2, 1)
        got = model(input_ids=tail, use_cache=True, **{name: repeated(cache, 2)}).logits[1, -_TAIL:]
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.debug("No cache is shared: %s", error)
        return False
    return _alike(got, want, model)


@torch.inference_mode()
def pads(model: Any, name: str, tokens: Tokens, pad_id: int) -> bool:
    """Return whether a prompt may be padded on its left for a generation: the numbers are those without padding.

    Args:
        model: the model, in evaluation mode, with its generation settings.
        name: see `cache_name`.
        tokens: of a prompt.
        pad_id: the token that fills rows up.
    """
    short = tokens[-_TRIED:]
    filled = (pad_id,) * 9 + short
    mask = torch.ones(2, len(filled), dtype=torch.long, device=model.device)
    mask[0, :9] = 0
    ids = torch.tensor([filled, (*short[:1] * 9, *short)], device=model.device)
    asked: dict[str, Any] = {"max_new_tokens": 6, "output_logits": True, "return_dict_in_generate": True}
    try:
        if not _is_known(getattr(model(input_ids=ids[:1, 9:], use_cache=True), name, None)):
            return False
        want = model.generate(input_ids=ids[:1, 9:], attention_mask=mask[1:, 9:], **asked)
        got = model.generate(input_ids=ids, attention_mask=mask, **asked)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.debug("Prompts are not padded: %s", error)
        return False
    finally:
        forget(model)
    said = [found.sequences[0, -len(found.logits) :].tolist() for found in (got, want)]
    differ = [a != b for a, b in zip(*said, strict=False)]
    alike = differ.index(True) + 1 if True in differ else len(differ)  # behind a tie the two say different texts
    shown, wanted = (torch.stack([logits[0] for logits in found.logits[:alike]]) for found in (got, want))
    return _alike(shown, wanted, model)


@torch.inference_mode()
def leaves(model: Any, name: str, tokens: Tokens) -> bool:
    """Return whether a generation may be interrupted and continued without some of its rows: the numbers stay as they are.

    Args:
        model: the model, in evaluation mode, with its generation settings.
        name: see `cache_name`.
        tokens: of a prompt.
    """
    if not name:
        return False
    short = tokens[-_TRIED:]
    ids = torch.tensor([short, short[::-1]], device=model.device)
    mask = torch.ones_like(ids)
    asked: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
    three = asked | {"min_new_tokens": 3, "max_new_tokens": 3}
    try:
        whole = model.generate(input_ids=ids, attention_mask=mask, min_new_tokens=6, max_new_tokens=6, **asked)
        forget(model)
        begun = model.generate(input_ids=ids, attention_mask=mask, **three)
        cache, kept = begun.past_key_values, torch.tensor([1], device=model.device)
        if not _is_known(cache):
            return False
        cache.reorder_cache(kept)
        sequence = begun.sequences[kept]
        mask = torch.ones_like(sequence)
        rest = model.generate(input_ids=sequence, attention_mask=mask, **three | {name: cache})
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.debug("No row leaves a generation: %s", error)
        return False
    finally:
        forget(model)
    shown, wanted = [], []
    for step, (got, want) in enumerate(zip(rest.logits, whole.logits[3:], strict=True), start=3):
        if not torch.equal(rest.sequences[0, : len(short) + step], whole.sequences[1, : len(short) + step]):
            break  # a tie: from here on the two say different texts
        shown.append(got[0])
        wanted.append(want[1])
    return bool(shown) and _alike(torch.stack(shown), torch.stack(wanted), model)


def _is_known(cache: Any) -> bool:
    """Return whether a cache is of transformers' own layers; what a model brings itself is not trusted with other rows."""
    from transformers import DynamicCache

    return type(cache) is DynamicCache


def _alike(got: torch.Tensor, want: torch.Tensor, model: Any) -> bool:
    """Return whether logits, shape (positions, vocabulary), are the same but for rounding.

    In 16 bits single positions differ by chance, so they are taken together there.
    """
    differences = (got.float().log_softmax(-1) - want.float().log_softmax(-1)).abs().mean(-1)
    if not _rounds(model) and model.dtype in TOLERANCE:
        return float(differences.max()) <= TOLERANCE[model.dtype]
    return float(differences.mean()) <= max(TOLERANCE_ROUNDED, SHARE_ROUNDED * float(want.float().abs().mean()))


def _rounds(model: Any) -> bool:
    """Return whether a model computes in fewer bits than its weights have: quantised, or cast as it is trained."""
    # accelerate keeps a model's forward pass under that name where its own one casts.
    cast = torch.is_autocast_enabled(model.device.type) or hasattr(model, "_original_forward")
    return cast or hasattr(model.config, "quantization_config")
