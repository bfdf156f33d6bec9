"""The trained weights of a model: float32 masters of those, everything else frozen in the compute type.

The model stays what it is: `forward` without labels, `generate` and the tokenizer work on it as on any other. Trained
weights are float32 parameters; hooks bring what the embedding looks up into the compute type, and autocast does so for
multiplications. With `new-rows` the parameter holds the new rows only, and the model's own matrix, frozen, follows it.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.checkpoint import Checkpoint, read_blocks
from lep.model.embeddings import match_tensor
from lep.model.layers import transformer_layers
from lep.model.sharding import gathered, is_sharded, own, own_rows, shard, span
from lep.model.shards import NewTensor, read_rows, write_shard
from lep.pretraining.adapter import Adapter, Lora, add_adapter
from lep.pretraining.cross_entropy import Logits, fused_kernel, linear_cross_entropy
from lep.pretraining.hidden import HiddenStates
from lep.pretraining.kernels import PLAIN

_NEW_ROWS = ".new_rows"


@dataclass
class Trainable:
    """A model with some of its weights ready to be trained.

    Attributes:
        model: the model, patched (see `prepare`).
        what: one of `TRAINABLE`.
        compute: type of multiplications.
        parameters: the trained parameters by their name in the model.
        embedding: names of those whose rows are tokens of the input embedding (and of a head tied to it).
        head: names of those that belong to an untied head.
        rows: with `new-rows` the row numbers of the new rows.
        adapter: LoRA on the layers, where it is trained.
        hidden: hidden states that are kept, for `head`.
    """

    model: Any
    what: str
    compute: torch.dtype
    parameters: dict[str, nn.Parameter]
    embedding: tuple[str, ...]
    head: tuple[str, ...]
    rows: torch.Tensor | None = None
    adapter: Adapter | None = None
    hidden: HiddenStates | None = None
    _matrices: list[tuple[Any, nn.Parameter]] = field(default_factory=list)

    @property
    def tied(self) -> bool:
        """Return whether embedding and head are one matrix."""
        return self.model.get_input_embeddings().weight is self.model.get_output_embeddings().weight

    @property
    def count(self) -> int:
        """Values that are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def cross_entropy(self) -> str:
        """What computes the loss: the name and version of a fused kernel, or `chunked`."""
        logits, device = Logits.of(self.model.config), self.model.get_output_embeddings().weight.device
        kernel = fused_kernel(device, self.compute, logits=logits, new_rows=self.rows is not None)
        return PLAIN if kernel is None else kernel.name

    def follow(self) -> None:
        """Bring the model's own matrices up to date with their new rows, after these changed."""
        if self.rows is not None:
            with torch.no_grad():
                for module, new in self._matrices:
                    values, places, chosen = own_rows(module.weight, self.rows)
                    values[places] = new[chosen].to(values.dtype)

    def autocast(self) -> torch.autocast:
        """The context in which the model computes."""
        device = self.model.get_input_embeddings().weight.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.compute == torch.bfloat16)

    def shard(self, device: torch.device) -> None:
        """Cut the model up among the processes (`lep.model.sharding`); new rows and LoRA, which are small, stay whole."""
        whole = {parameter for name, parameter in self.parameters.items() if self.stays_whole(name)}
        shard(self.model, transformer_layers(self.model)[1], whole, device)
        self.parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if self.rows is not None:
            self.rows = self.rows.to(device)

    def stays_whole(self, name: str) -> bool:
        """Return whether every process keeps a trained parameter whole when the model is cut up."""
        return name.endswith(_NEW_ROWS) or (self.adapter is not None and name in self.adapter.parameters)

    def values(self, *, keep: bool = True) -> dict[str, torch.Tensor]:
        """Return the trained weights by their names; where they are cut up they are put together, and all processes take part.

        Args:
            keep: whether this process needs them; the others get none.
        """
        found = {}
        for name, parameter in self.parameters.items():
            value = gathered(parameter.detach())
            if keep:
                found[name] = value.cpu() if is_sharded(parameter) else value
        return found

    def tensors(self, source: Checkpoint, values: Mapping[str, torch.Tensor]) -> dict[str, NewTensor]:
        """The trained weights as the tensors of a folder, in its types and by its names.

        Args:
            source: the folder that the others are taken from.
            values: of `values`.

        Raises:
            UserError: the folder keeps one of them in another form.
        """
        result = {} if self.adapter is None else self.adapter.tensors()
        inside = () if self.adapter is None else self.adapter.parameters
        for name in self.parameters:
            if name in inside:
                continue
            stored = self.place(name, source)
            value = values[name]
            rows = self.rows if name.endswith(_NEW_ROWS) else None
            if stored is None or stored.shape != (value.shape if rows is None else (stored.shape[0], value.shape[1])):
                raise UserError(
                    f"{source.folder.name} does not store the weight {name} in the form that transformers trains it in, "
                    f"so --train {self.what} cannot write it back. Train embeddings, head or new-rows."
                )

            def blocks(
                stored: Any = stored, value: torch.Tensor = value, rows: torch.Tensor | None = rows
            ) -> Iterator[torch.Tensor]:
                if rows is None:
                    yield from torch.split(value.cpu(), 8192)
                    return
                order = rows.cpu()
                for start, block in read_blocks(stored):
                    inside = (order >= start) & (order < start + len(block))
                    block[order[inside] - start] = value.cpu()[inside].to(block.dtype)
                    yield block

            result[stored.name] = NewTensor(stored.dtype, stored.shape, blocks)
        return result

    def place(self, name: str, source: Checkpoint) -> StoredTensor | None:
        """Return where a folder stores a trained parameter; None where it does not."""
        return _stored(self.model, self.parameters[name], name, source)

    def save_masters(self, folder: Path, values: Mapping[str, torch.Tensor]) -> None:
        """Write the float32 `values`, which the model's own type may round, to a safetensors file in `folder`."""
        folder.mkdir()
        tensors = {
            name: NewTensor("F32", tuple(value.shape), lambda value=value: [value.cpu()])  # type: ignore[misc]
            for name, value in values.items()
        }
        write_shard(folder / "weights.safetensors", tensors, {"format": "pt"})

    def load_masters(self, folder: Path) -> None:
        """Read what `save_masters` wrote."""
        from safetensors import safe_open

        with torch.no_grad(), safe_open(folder / "weights.safetensors", framework="pt") as file:
            for name, parameter in self.parameters.items():
                start, stop = span(parameter)
                own(parameter).copy_(file.get_slice(name)[start:stop])
        self.follow()


def prepare(
    model: Any,
    what: str,
    source: Checkpoint,
    *,
    new_ids: Sequence[int] = (),
    compute: torch.dtype,
    lora: Lora | None = None,
) -> Trainable:
    """Freeze and thaw the weights of a model, and give it a forward pass with a loss that never holds all logits.

    `model(input_ids, labels=…, position_ids=…, num_items_in_batch=…)` then returns the loss only; without labels the
    model answers as before. With `head`, no gradient crosses the backbone; a tied matrix then is trained by the gradient
    of the head alone.

    Args:
        model: a causal language model of transformers in the compute type.
        what: one of `TRAINABLE`.
        source: the folder it came from; trained weights stored in float32 are read from it exactly.
        new_ids: for `new-rows`.
        compute: type of multiplications.
        lora: sizes of the adapter, for what ends in `lora`.

    Raises:
        UserError: new rows are wanted and not known, or the layers are not found.
    """
    model.requires_grad_(False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = embedding.weight is head.weight
    # The row of the padding token is a token's row like any other; filling gets no gradient anyway.
    embedding.padding_idx = None
    parts = what.split("+")
    adapter = add_adapter(model, lora or Lora(), source) if "lora" in parts else None
    if "new-rows" in parts:
        if not len(new_ids):
            raise UserError(
                f"Which rows of {source.folder.name} are new is not known: no lep.json of `lep vocab` and `lep init` "
                "tells. Name the first one with --new-from ROW."
            )
        rows = torch.tensor(sorted(new_ids), device=embedding.weight.device)
        modules = [embedding] if tied else [embedding, head]
        made = [nn.Parameter(_exact(model, m.weight, source)[rows].float()) for m in modules]
        for module, parameter in zip(modules, made, strict=True):
            module.register_parameter("new_rows", parameter)
        if tied:
            head.register_parameter("new_rows", made[0])
        matrices = list(zip(modules, made, strict=True))
    else:
        rows, matrices = None, []
        for parameter in {id(p): p for p in _chosen(model, parts)}.values():
            parameter.data = _exact(model, parameter, source).float()
            parameter.requires_grad_(True)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inside, outside = {id(p) for p in embedding.parameters()}, {id(p) for p in head.parameters()}
    result = Trainable(
        model,
        what,
        compute,
        parameters,
        tuple(name for name, p in parameters.items() if id(p) in inside),
        tuple(name for name, p in parameters.items() if id(p) in outside and id(p) not in inside),
        rows,
        adapter,
        _matrices=matrices,
    )
    # Trained whole in bfloat16, the residual stream stays float32, as mixed precision usually has it.
    cast = None if what == "all" else compute
    embedding.register_forward_hook(_looked_up(result, embedding, cast))
    _give_loss(result, head, Logits.of(model.config))
    return result


def check_forward(trainable: Trainable, *, packing: bool) -> None:
    """Try on the model itself that our loss sees its logits and that packed documents do not see each other.

    Raises:
        UserError: one of them does not hold for this architecture.
    """
    model = trainable.model
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(4, 36, device=device)[None] % model.config.get_text_config().vocab_size
    tolerance = 0.05 if trainable.compute == torch.bfloat16 else 1e-3
    if getattr(model, "is_quantized", False):  # what counts as an outlier in 8 bits depends on what is computed with it
        tolerance = 0.1
    name = type(model).__name__
    model.eval()
    with torch.no_grad(), trainable.autocast():
        hidden = _backbone(model, input_ids=ids)
        wanted = model(input_ids=ids).logits.float()
        got = Logits.of(model.config)(model.get_output_embeddings()(hidden).float())
        if _distance(got, wanted) > tolerance:
            raise UserError(
                f"{name} does something to its logits that lep does not know, so it cannot be trained here."
            )
        if not packing:
            return
        positions = torch.cat([torch.arange(20), torch.arange(12)])[None].to(device)
        packed = _backbone(model, input_ids=ids, position_ids=positions)
        parts = [_backbone(model, input_ids=part) for part in (ids[:, :20], ids[:, 20:])]
        if _distance(packed, torch.cat(parts, dim=1)) > tolerance:
            raise UserError(f"{name} does not keep packed documents apart. Use --no-packing.")


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-12))


def _stored(model: Any, parameter: nn.Parameter, name: str, source: Checkpoint) -> StoredTensor | None:
    """Return the place of a weight in a folder; heads go by several names."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    known = source.embeddings
    for module, stored in ((embedding, known.input), (head, known.head)):
        if parameter is module.weight or parameter is getattr(module, "new_rows", None):
            return stored
    if parameter is getattr(head, "bias", None):
        return known.bias
    return match_tensor(name, source.tensors)


def _exact(model: Any, parameter: nn.Parameter, source: Checkpoint) -> torch.Tensor:
    """A weight as it is stored, where the folder has more digits than the model in memory."""
    name = next(name for name, other in model.named_parameters() if other is parameter)
    stored = _stored(model, parameter, name, source)
    if stored is None or stored.dtype != "F32" or parameter.dtype == torch.float32:
        return parameter.detach()
    return read_rows(stored, 0, stored.shape[0]).to(parameter.device).view(parameter.shape)


def _chosen(model: Any, parts: Sequence[str]) -> Iterator[nn.Parameter]:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if parts == ["lora"]:
        return
    yield from head.parameters()
    if parts == ["head"]:
        return
    yield from embedding.parameters()
    if parts == ["all"]:
        yield from model.get_decoder().parameters()
    if "ends" in parts:
        _, layers = transformer_layers(model)
        yield from layers[0].parameters()
        yield from layers[-1].parameters()


def _looked_up(trainable: Trainable, embedding: Any, cast: torch.dtype | None) -> Any:
    """A forward hook of the embedding: the compute type, and the gradient's way to the new rows."""
    # The same module around the small matrix, since some multiply what they look up.
    twin = copy.copy(embedding)
    twin._parameters = {"weight": getattr(embedding, "new_rows", None)}
    twin._forward_hooks = OrderedDict()

    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        rows = trainable.rows
        if trainable.what == "head":
            output = output.detach()
        if rows is not None and torch.is_grad_enabled():
            place = torch.searchsorted(rows, inputs[0]).clamp(max=len(rows) - 1)
            is_new = rows[place] == inputs[0]
            output = torch.where(is_new[..., None], twin(place).to(output.dtype), output)
        return output if cast is None else output.to(cast)

    return hook


def _backbone(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
    return hidden


def _give_loss(trainable: Trainable, head: Any, logits: Logits) -> None:
    model = trainable.model
    plain = model.forward

    @functools.wraps(plain.__func__)  # generate() looks at the signature
    def forward(
        self: Any,
        *arguments: Any,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        rows: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        if labels is None:
            return plain(*arguments, **inputs)
        kept = trainable.hidden
        hidden = kept.read(rows, labels.shape[1]) if kept is not None and rows is not None else None
        if hidden is None:
            hidden = _backbone(self, **inputs)
            if kept is not None and rows is not None:
                kept.write(rows, hidden)
        hidden = hidden[:, :-1].flatten(0, 1).to(trainable.compute)
        targets = labels[:, 1:].flatten()
        total = linear_cross_entropy(
            hidden,
            head.weight,
            targets,
            bias=getattr(head, "bias", None),
            new_rows=getattr(head, "new_rows", None),
            rows=trainable.rows,
            logits=logits,
        )
        count = num_items_in_batch if num_items_in_batch is not None else (targets >= 0).sum().clamp(min=1)
        return CausalLMOutput(loss=total / count)

    model.forward = MethodType(forward, model)
    model.accepts_loss_kwargs = True
