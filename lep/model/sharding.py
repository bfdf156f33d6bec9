"""A model cut up among the processes of a training: torch's FSDP2, on GPUs and, over gloo, on CPUs.

`fully_shard` is called here and not left to accelerate, which has FSDP on accelerators only: on CPUs it copies the model to all
processes and does not say so. That is also why the same code is tested on CPUs that runs on GPUs.

Each process keeps ⌈n / processes⌉ of a weight's n rows, with their gradient and their optimizer state. Each layer is gathered
while it is computed; embedding, head and last norm, which the loss reads without calling them, from the forward to the
backward pass. Weights that are to stay whole are copies that get the mean of all processes' gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor


def shard(model: Any, layers: Sequence[Any], whole: Collection[torch.nn.Parameter], device: torch.device) -> None:
    """Cut a model up among all processes, in place; it comes to lie on their devices.

    Args:
        model: a causal language model, the same in every process, on the CPU.
        layers: its transformer layers.
        whole: parameters that stay whole in each process.
        device: of this process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    for module in (*layers, model):
        fully_shard(module, mesh=mesh, ignored_params=set(whole))


class ShardedTrainer:
    """What a Trainer of transformers has to know of a model that may be cut up; stands before it among the base classes."""

    def __init__(self, *, model: Any, **settings: Any) -> None:
        self.sharded = any(is_sharded(parameter) for parameter in model.parameters())
        super().__init__(model=model, **settings)  # type: ignore[call-arg]  # a Trainer comes next
        # Its own word for a model that sees to its place and its gradients itself; copies in each process get their mean.
        self.is_distributed_loading_by_transformers = self.sharded

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if not self.sharded:
            super()._move_model_to_device(model, device)  # type: ignore[misc]


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is cut up among processes."""
    return isinstance(tensor, DTensor)


def own(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's rows of a tensor, sharing its memory; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the numbers of this process's rows of a tensor: the first, and the one after the last."""
    if not isinstance(tensor, DTensor):
        return 0, tensor.shape[0]
    share = -(-tensor.shape[0] // tensor.device_mesh.size())
    start = min(tensor.device_mesh.get_local_rank() * share, tensor.shape[0])
    return start, start + tensor.to_local().shape[0]


def own_rows(tensor: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | slice]:
    """Return this process's part of a tensor, the places in it of some of the tensor's rows, and which of them these are.

    Args:
        tensor: cut up or whole.
        rows: numbers of rows.
    """
    if not isinstance(tensor, DTensor):
        return tensor, rows, slice(None)
    start, stop = span(tensor)
    inside = (rows >= start) & (rows < stop)
    return tensor.to_local(), rows[inside] - start, inside


def summed(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the sum over the processes of what each has computed from its rows of `like`; every process takes part."""
    if isinstance(like, DTensor):
        torch.distributed.all_reduce(part)
    return part


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor; every process takes part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered_state(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """Return an optimizer's state as a single process has it, on the CPU; every process takes part.

    Args:
        optimizer: of torch, or accelerate's around it.
        keep: whether this process needs it; the others get it without the state.
    """
    state: dict[str, Any] = optimizer.state_dict()
    found: dict[Any, dict[str, Any]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            whole = gathered(value) if isinstance(value, torch.Tensor) else value
            if keep:
                found.setdefault(number, {})[name] = whole.cpu() if isinstance(whole, torch.Tensor) else whole
    return {**state, "state": found}


def cut_state(state: Mapping[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return this process's part of what `gathered_state` returned, as `load_state_dict` of the optimizer takes it.

    Args:
        state: of a single process, or of any number of them.
        optimizer: whose parameters are cut up.
    """
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found = {}
    for number, parameter in zip(numbers, parameters, strict=True):
        values = state["state"].get(number, {})
        found[number] = {name: _cut(value, parameter) for name, value in values.items()}
    return {**state, "state": found}


def _cut(value: Any, parameter: torch.Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    start, stop = span(parameter)
    return DTensor.from_local(
        value[start:stop].to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
