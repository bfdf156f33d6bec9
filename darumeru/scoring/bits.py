"""Bits per byte of running text: how a text is cut, for the tasks that measure it and for `lep` alike.

``−Σ log2 p(token | the tokens before it in its piece) / bytes``, each piece after the model's BOS token (EOS where it has
none), so that every byte is predicted. It compares across tokenizers, which perplexity per token does not.
"""

from __future__ import annotations

PIECE = 2000
"""Most characters of a piece. Pieces are cut by characters, not by tokens, so that every tokenizer gets the same contexts;
numbers of other lengths do not compare: the longer the context, the fewer the bits."""


def pieces(text: str, size: int = PIECE) -> list[str]:
    """Return a text in pieces of at most `size` characters, cut after half of them at line ends or spaces where there are any.

    Nothing is lost but pieces of white space only.
    """
    found = []
    while len(text) > size:
        cut = max(text.rfind("\n", size // 2, size), 0) or max(text.rfind(" ", size // 2, size), 0) or size
        found.append(text[:cut])
        text = text[cut:]
    return [piece for piece in [*found, text] if piece.strip()]
