"""Text that Markdown and LaTeX print as it is."""

from __future__ import annotations

import re


def escape_markdown(text: str) -> str:
    """Return text that no Markdown reads as markup: a table cell, on one line."""
    flat = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", flat)


_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_TEX.get(c, c) for c in re.sub(r"\s+", " ", text).strip())
