"""GPUs, as the driver and as PyTorch see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darumeru.doctor.findings import Finding, ask, gigabytes
from darumeru.doctor.gpus import Gpu, driver_fault, nvidia_gpus
from darumeru.processor import slow_half

_TORCH = """
import json, torch
cuda = torch.cuda
answer = {"version": torch.__version__, "cuda": torch.version.cuda or "", "hip": torch.version.hip or "", "gpus": []}
answer["processor"] = dict(getattr(torch.cpu, "get_capabilities", dict)())
try:
    for index in range(cuda.device_count()):
        free, total = cuda.mem_get_info(index)
        major, minor = cuda.get_device_capability(index)
        native = major >= 8 or bool(torch.version.hip)
        name = cuda.get_device_name(index)
        answer["gpus"].append({"name": name, "free": free, "total": total, "capability": f"{major}.{minor}", "bfloat16": native})
except Exception as error:
    answer["fault"] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(answer))
"""

_FREE = 0.5
"""A GPU with a smaller share of its memory free is somebody's."""

_TAKEN = (
    "GPU {0} is in use, nvidia-smi lists by whom: take another with CUDA_VISIBLE_DEVICES (watch: --device cuda:N), or leave "
    "room with --model-args gpu_memory_utilization=0.3 on the vllm engine."
)


def findings() -> list[Finding]:
    """Ask the driver and PyTorch."""
    return judge(nvidia_gpus(), ask(_TORCH))


def judge(gpus: Sequence[Gpu], torch: dict[str, Any]) -> list[Finding]:
    """Hold what PyTorch says (see `_TORCH`, or `error`) against what the driver lists."""
    here = [Finding("devices", "driver", gpus[0].driver)] if gpus else []
    if "error" in torch:
        advice = "Install PyTorch anew: pip install --force-reinstall torch."
        return [*here, Finding("devices", "torch", f"cannot be imported ({torch['error']})", "broken", advice)]
    built = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "CPU only"
    fault = driver_fault(gpus[0].driver, torch["cuda"]) if gpus else None
    if fault:
        return [*here, Finding("devices", "torch", f"built for {built}", "broken", fault)]
    here.append(Finding("devices", "torch", f"built for {built}"))
    if not torch["gpus"]:
        if gpus and not torch["cuda"]:
            advice = (
                "The GPU is not used: install the CUDA build (scripts/install.py, or pip install 'darumeru[vllm]')."
            )
            here.append(Finding("devices", "GPU", f"{gpus[0].name}, which this PyTorch cannot use", "note", advice))
        elif gpus:
            reason = torch.get("fault") or "hidden by CUDA_VISIBLE_DEVICES?"
            here.append(Finding("devices", "GPU", f"{gpus[0].name}, which PyTorch does not see ({reason})", "broken",
                                "Look at CUDA_VISIBLE_DEVICES and at nvidia-smi."))  # fmt: skip
        else:
            here.append(_processor(torch.get("processor", {})))
            here.append(Finding("devices", "GPU", "none; everything runs on the CPU"))
    for number, gpu in enumerate(torch["gpus"]):
        text = f"{gpu['name']}, {gigabytes(gpu['free'])} of {gigabytes(gpu['total'])} free"
        text += f", compute capability {gpu['capability']}" + ("" if gpu["bfloat16"] else ", no bfloat16")
        advice = "" if gpu["free"] >= _FREE * gpu["total"] else _TAKEN.format(number)
        here.append(Finding("devices", f"GPU {number}", text, "note" if advice else "ok", advice))
    return here


def _processor(capabilities: Mapping[str, Any]) -> Finding:
    name = capabilities.get("cpu_name") or "unknown to PyTorch"
    if slow_half(capabilities):
        advice = "Most models are in bfloat16, which this processor computes slowly: --dtype float32 is at least twice as fast."
        return Finding("devices", "processor", f"{name}, without AVX-512", "note", advice)
    return Finding("devices", "processor", name)
