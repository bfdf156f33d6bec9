"""Conversations among the texts of a training: each is a block of its own, in the chat template of the model.

Of a training on texts alone a model with a chat template forgets what its control tokens mean. In a conversation they are
encoded as such, while texts about chat templates stay text (`lep.pretraining.blocks`). Every token counts, the user's too: new
tokens have to be learned there as well.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.data.texts import text_kind
from darumeru.errors import UserError
from darumeru.files import read_jsonl
from lep.calibration.chat import read_chats
from lep.model.folders import new_folder
from lep.pretraining.blocks import Blocks, Counts, blocks_fingerprint, found_blocks, note_blocks

_BATCH = 64


def is_chat(source: str) -> bool:
    """Return whether the rows of a file hold conversations, `messages`, as those of `lep calibrate data` do."""
    path = Path(source)
    if not path.is_file() or text_kind(path) != "jsonl" or path.suffix == ".zst":
        return False
    _, row = next(iter(read_jsonl(path)), (0, None))
    return isinstance(row, dict) and "messages" in row


def chats_fingerprint(source: str, tokenizer: Any, *, block_size: int) -> str:
    """Return a fingerprint of the inputs of `open_chats`.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"The rows of {Path(source).name} are conversations, and the model has no chat template to write them in. Take "
            "texts, or give the model folder a chat_template.jinja."
        )
    texts = blocks_fingerprint([source], tokenizer, block_size=block_size)
    return "sha256-sampled:" + hashlib.sha256(json.dumps([texts, tokenizer.chat_template]).encode()).hexdigest()


def open_chats(source: str, tokenizer: Any, folder: Path, *, block_size: int) -> Blocks:
    """Return the conversations of a file as blocks, made once and found again in `folder` while file and tokenizer stay.

    Those of more than `block_size` tokens are left out whole: without its end a turn would teach not to end. So are those that
    the chat template refuses (many want user and assistant by turns), which are counted.

    Args:
        source: a `.jsonl` file (also `.gz`) with `messages`.
        tokenizer: a fast tokenizer of transformers with a chat template.
        folder: where the blocks lie.
        block_size: most tokens of a block.

    Raises:
        UserError: the tokenizer has no chat template, a row is no conversation, or none fits into a block.
    """
    from jinja2 import TemplateError

    from darumeru.inference.prompt import Limits, Prompter

    fingerprint = chats_fingerprint(source, tokenizer, block_size=block_size)
    if (found := found_blocks(folder, fingerprint)) is not None:
        return found
    prompter = Prompter(tokenizer, "instruct", Limits())
    characters = kept = letters = 0
    ends: list[int] = []
    read: Counter[bool] = Counter()

    def written() -> Iterator[str]:
        for messages in read_chats(Path(source)):
            try:
                text = prompter.finished(messages)
            except TemplateError:
                read[False] += 1
            else:
                read[True] += 1
                yield text

    with new_folder(folder, force=True) as place:
        with (place / "tokens.bin").open("wb") as file:
            for texts in _batches(written()):
                for text, ids in zip(texts, prompter.encode(texts), strict=True):
                    characters += len(text)
                    if len(ids) <= block_size:
                        kept += len(text)
                        letters += sum(map(str.isalpha, text))
                        ends.append(len(ids) + (ends[-1] if ends else 0))
                        file.write(np.array(ids, dtype=np.uint32).tobytes())
        if not ends:
            raise UserError(
                f"No conversation of {Path(source).name} fits into --block-size {block_size} tokens. Take shorter ones, or a "
                "larger block size."
                if read[True]
                else f"The chat template refuses all {read[False]} conversations of {Path(source).name}. Take others."
            )
        (place / "ends.bin").write_bytes(np.array(ends, dtype=np.int64).tobytes())
        counts = Counts(
            read.total(), len(ends), ends[-1], characters, 1 - kept / characters, letters, 0.0, refused=read[False]
        )
        note_blocks(place, fingerprint, counts)
    return Blocks(folder)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch
