"""What a training holds in memory, and which computation of the loss it takes."""

import enum
import json
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lep.pretraining import kernels, trainer
from lep.pretraining.cross_entropy import Logits, fused_kernel
from lep.pretraining.job import pretrain
from support.pretraining import documents, make_base, small


def test_a_part_of_a_schedule_leaves_no_trainer_behind(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models and two optimizers at once are what does not fit. And the manifest says what computed the loss."""
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents()))
    known: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Counted(trainer.PretrainTrainer):
        def __init__(self, *args: Any, **settings: Any) -> None:
            alive.append(sum(other() is not None for other in known))
            super().__init__(*args, **settings)
            known.extend((weakref.ref(self), weakref.ref(self.model)))

    monkeypatch.setattr(trainer, "PretrainTrainer", Counted)
    manifest = pretrain(
        make_base(make_model, "llama"), [tmp_path / "corpus.jsonl"], tmp_path / "out",
        settings=small(train="head:0.3,new-rows:0.3,embeddings", max_steps=6),
    )  # fmt: skip
    assert alive == [0, 0, 0]
    assert manifest["measures"]["cross_entropy"] == ["chunked"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have packages of kernels installed that compute plainly and refuse arguments that the real ones do not know."""

    def cut(presets: tuple[str, ...]) -> types.ModuleType:
        module: Any = types.ModuleType("cut_cross_entropy")
        module.LinearCrossEntropyImpl = enum.IntEnum("LinearCrossEntropyImpl", [p.upper() for p in presets])

        def old(e: Any, c: Any, targets: Any, softcap: Any = None, reduction: str = "mean", impl: str = "cce") -> Any:
            raise AssertionError("the released kernel filters gradients")

        def new(
            e: Any,
            c: Any,
            targets: Any,
            bias: Any = None,
            softcap: Any = None,
            reduction: str = "mean",
            impl: str = "cce",
        ) -> Any:
            assert (impl, reduction) == ("cce_kahan_full_c", "sum")
            return plain(e, c, targets, bias, softcap)

        module.linear_cross_entropy = new if "cce_kahan_full_c" in presets else old
        return module

    def liger() -> types.ModuleType:
        module: Any = types.ModuleType("liger_kernel.transformers")

        class Loss:
            def __init__(self, reduction: str, softcap: Any, accum_dtype: Any) -> None:
                assert (reduction, accum_dtype) == ("sum", torch.float32)
                self.softcap = softcap

            def __call__(self, weight: Any, hidden: Any, targets: Any, bias: Any) -> Any:
                if not hidden.requires_grad:  # as in 0.8.5: then it computes no gradient at all
                    weight = weight.detach()
                return plain(hidden, weight, targets, bias, self.softcap)

        module.LigerFusedLinearCrossEntropyLoss = Loss
        return module

    def install(presets: tuple[str, ...] = (), with_liger: bool = False) -> None:
        kernels._installed.cache_clear()
        monkeypatch.setitem(sys.modules, "cut_cross_entropy", cut(presets) if presets else None)
        monkeypatch.setitem(sys.modules, "liger_kernel.transformers", liger() if with_liger else None)

    yield install
    kernels._installed.cache_clear()


def plain(hidden: Any, weight: Any, targets: Any, bias: Any, cap: Any) -> Any:
    logits = Logits(cap=cap)(torch.nn.functional.linear(hidden, weight, bias).float())
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize(
    ("presets", "with_liger", "name"),
    [
        (("cce", "torch_compile"), False, None),
        (("cce", "torch_compile"), True, "liger-kernel"),
        (("cce", "cce_kahan_full_c"), True, "cut-cross-entropy"),
        ((), False, None),
    ],
)
def test_a_kernel_is_taken_only_with_settings_for_pretraining(
    presets: tuple[str, ...], with_liger: bool, name: str | None, installed: Callable[..., None]
) -> None:
    """cut-cross-entropy 25.1.1, the newest release on PyPI, has no preset that keeps small gradients, and knows no bias."""
    installed(presets, with_liger)
    gpu = torch.device("cuda")
    found = fused_kernel(gpu, torch.bfloat16, logits=Logits(cap=5.0))
    assert (found and found.name.split()[0]) == name
    for scale, new_rows, dtype in (
        (0.5, False, torch.bfloat16),
        (1.0, True, torch.bfloat16),
        (1.0, False, torch.float32),
    ):
        assert fused_kernel(gpu, dtype, logits=Logits(scale), new_rows=new_rows) is None
    assert fused_kernel(torch.device("cpu"), torch.bfloat16) is None
    if found is not None:
        torch.manual_seed(0)
        hidden, weight, bias = torch.randn(9, 4), torch.randn(20, 4), torch.randn(20)
        targets = torch.randint(0, 20, (9,))
        wanted = plain(hidden, weight, targets, bias, 5.0)
        assert float(found.loss(hidden, weight, targets, bias, 5.0)) == pytest.approx(float(wanted))


@pytest.mark.parametrize(("presets", "with_liger"), [((), True), (("cce_kahan_full_c",), False)])
def test_a_head_alone_gets_its_gradient_from_a_kernel(
    presets: tuple[str, ...], with_liger: bool, installed: Callable[..., None]
) -> None:
    installed(presets, with_liger)
    found = fused_kernel(torch.device("cuda"), torch.bfloat16)
    assert found is not None
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 4), torch.randn(20, 4), torch.randint(0, 20, (9,))
    got, wanted = weight.clone().requires_grad_(), weight.clone().requires_grad_()
    found.loss(hidden, got, targets, None, None).backward()
    plain(hidden, wanted, targets, None, None).backward()
    assert got.grad is not None and wanted.grad is not None
    assert torch.allclose(got.grad, wanted.grad)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_chosen_where_the_gpu_has_it(native: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTorch says that a T4 supports it: by emulation, slower than float32."""
    import transformers

    from lep.calibration.train import _place
    from lep.pretraining.arguments import training_arguments

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(transformers, "TrainingArguments", lambda **given: given)
    arguments: Any = training_arguments(small(device="auto"), tmp_path, evaluates=False)
    assert arguments["bf16"] is native
    arguments = training_arguments(small(device="auto", dtype="bfloat16"), tmp_path, evaluates=False)
    assert arguments["bf16"] is True, "who asks for it gets it"
    assert _place("auto", "auto") == ("cuda", "bfloat16" if native else "float32")
