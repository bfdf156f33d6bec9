"""Whether the processes of a training, which torchrun or accelerate starts, cut the model up among them (FSDP)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from darumeru.errors import UserError

_ACCELERATE = "ACCELERATE_USE_FSDP"
_ELSEWHERE = {
    "FSDP_OFFLOAD_PARAMS": "leave --fsdp_offload_params out",
    "FSDP_ACTIVATION_CHECKPOINTING": "take --gradient-checkpointing instead of --fsdp_activation_checkpointing",
}
"""What accelerate can do besides, by its variables, and what to do about it."""


def is_asked(fsdp: bool, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a model is to be cut up: by `--fsdp`, or by `accelerate launch --use_fsdp`.

    Raises:
        UserError: there is one process only, or accelerate's settings ask for what is not done here.
    """
    by_accelerate = environment.get(_ACCELERATE, "").lower() == "true"
    if by_accelerate and environment.get("FSDP_VERSION", "1") != "2":
        raise UserError("accelerate's --use_fsdp asks for FSDP 1, and there is FSDP 2 only: add --fsdp_version 2.")
    for name, instead in _ELSEWHERE.items():
        if by_accelerate and environment.get(name, "").lower() == "true":
            raise UserError(f"accelerate asks for {name} of FSDP, which is not done here: {instead}.")
    if (fsdp or by_accelerate) and int(environment.get("WORLD_SIZE", "1")) < 2:
        raise UserError(
            "FSDP cuts a model up among processes, and there is one: start several, torchrun --nproc_per_node N -m lep …, "
            "or leave --fsdp out."
        )
    return fsdp or by_accelerate


@contextmanager
def without_accelerate() -> Iterator[None]:
    """Keep accelerate, and transformers where it loads models, from an FSDP of their own, which they read in the environment."""
    known = os.environ.pop(_ACCELERATE, None)
    try:
        yield
    finally:
        if known is not None:
            os.environ[_ACCELERATE] = known
