"""Engines that work here, each tried in a process of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from darumeru.doctor.findings import Finding, ask

_TRY = """
import json, sys
from darumeru.engines import engine_class
engine = engine_class(sys.argv[1])
answer = {"available": engine.available(), "version": engine.version(), "server": engine.needs_server}
if answer["available"] and engine.name == "vllm":
    from vllm import LLM
    from vllm.platforms import current_platform
    answer["device"] = current_platform.device_type
print(json.dumps(answer))
"""

_INSTALL = {
    "vllm": "For the vllm engine: pip install 'darumeru[vllm]' (NVIDIA GPU), or python scripts/install.py VENV (either).",
    "api": "For the api engine: pip install 'darumeru[api]'.",
}


def findings() -> list[Finding]:
    """Try every engine, those of other packages too."""
    try:
        from darumeru.engines import engine_names

        names = engine_names()
    except Exception as error:
        return [Finding("engines", "all", f"cannot be listed ({type(error).__name__}: {error})", "broken")]
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        answers = dict(zip(names, pool.map(lambda name: ask(_TRY, name), names), strict=True))
    return judge(answers)


def judge(answers: dict[str, dict[str, Any]]) -> list[Finding]:
    """Say which engines work, of what each answered (see `_TRY`, or `error`)."""
    here = []
    for name, answer in answers.items():
        if "error" in answer:
            here.append(Finding("engines", name, f"does not work: {answer['error']}", "note", _INSTALL.get(name, "")))
        elif not answer["available"]:
            here.append(Finding("engines", name, "not installed", "missing", _INSTALL.get(name, "")))
        else:
            on = f" on {answer['device']}" if answer.get("device") else ""
            here.append(Finding("engines", name, f"works{on} ({answer['version']})"))
    local = [name for name, answer in answers.items() if answer.get("available") and not answer.get("server")]
    if not local:
        advice = "No engine can load a model. Install anew: pip install --force-reinstall torch transformers."
        here.append(Finding("engines", "any", "none loads a model", "broken", advice))
    return here
