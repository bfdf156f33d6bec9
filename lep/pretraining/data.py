"""The texts of a training in tokens: the corpus, what is replayed, the order of their rows, and what is doubtful about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lep.pretraining.blocks import Blocks, TrainingRows, blocks_fingerprint, open_blocks
from lep.pretraining.chats import chats_fingerprint, is_chat, open_chats
from lep.pretraining.replay import MixedRows, Replay, parse_replay
from lep.pretraining.settings import PretrainSettings
from lep.tokenizer.scripts import script_shares, scripts_of

_FEW = 0.25
"""A corpus with a smaller share of letters in the expected scripts is doubted."""


@dataclass(frozen=True)
class Texts:
    """Where the texts of a training are, and how they are read."""

    corpus: Sequence[str | Path]
    tokenizer: Any
    settings: PretrainSettings

    @property
    def replay(self) -> list[Replay]:
        """The texts that are mixed in."""
        return parse_replay(self.settings.replay)

    @property
    def scripts(self) -> tuple[str, ...]:
        """Scripts that the corpus is expected to be in; any where empty."""
        return scripts_of(self.settings.lang, self.settings.scripts)

    def fingerprints(self) -> dict[str, Any]:
        """Return fingerprints of the corpus and, where there are any, of the texts that are replayed.

        Raises:
            UserError: there is no such file.
        """
        how = self._how()
        found: dict[str, Any] = {"corpus": blocks_fingerprint(self.corpus, self.tokenizer, scripts=self.scripts, **how)}
        if self.replay:
            found["replay"] = [
                chats_fingerprint(part.source, self.tokenizer, block_size=self.settings.block_size)
                if is_chat(part.source)
                else blocks_fingerprint([part.source], self.tokenizer, **how)
                for part in self.replay
            ]
        return found

    def open(self, folder: Path, characters: Sequence[int] | None = None) -> Data:
        """Return the texts in tokens, which lie in `folder` and beside it.

        Args:
            folder: of the corpus.
            characters: how much is read of each text that is replayed, and of the corpus; instead of steps and epochs.

        Raises:
            UserError: there is no text.
        """
        how, settings = self._how(), self.settings
        corpus = open_blocks(self.corpus, self.tokenizer, folder, scripts=self.scripts, **how)
        replayed = [
            self._replayed(part.source, folder.with_name(f"{folder.name}-replay-{number}"))
            for number, part in enumerate(self.replay, 1)
        ]
        rows = [
            TrainingRows(b, block_size=settings.block_size, packing=settings.packing, seed=settings.seed)
            for b in (*replayed, corpus)
        ]
        shares, batch = [part.share for part in self.replay], settings.total_batch_size
        if characters is not None:
            pairs = zip(rows, characters, strict=True)
            wanted = [math.ceil(number / one.blocks.counts.kept * len(one)) for one, number in pairs]
            count = max(sum(wanted), 1)
            shares = [number / count for number in wanted[:-1]]
        elif settings.max_steps > 0:
            count = settings.max_steps * batch
        else:
            count = math.ceil(len(rows[-1]) * settings.num_train_epochs / (1 - sum(shares)))
        mixed = MixedRows(list(zip(rows, shares, strict=False)), rows[-1], batch=batch, length=count)
        return Data(self, corpus, replayed, mixed, math.ceil(count / batch))

    def _replayed(self, source: str, folder: Path) -> Blocks:
        if is_chat(source):
            return open_chats(source, self.tokenizer, folder, block_size=self.settings.block_size)
        return open_blocks([source], self.tokenizer, folder, **self._how())

    def _how(self) -> dict[str, Any]:
        return {"block_size": self.settings.block_size, "field": self.settings.field}


@dataclass(frozen=True)
class Data:
    """The texts of a training in tokens.

    Attributes:
        texts: where they are.
        corpus: the corpus.
        replay: what is mixed in.
        rows: the rows in the order that they are read.
        steps: of the whole training.
    """

    texts: Texts
    corpus: Blocks
    replay: list[Blocks]
    rows: MixedRows
    steps: int

    def doubts(self, held_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """Yield a sentence for whatever is doubtful.

        Args:
            held_out: texts that are measured on, in pieces, by name.
        """
        counts, settings, scripts = self.corpus.counts, self.texts.settings, self.texts.scripts
        if scripts and counts.in_scripts < _FEW:
            yield (
                f"Only {counts.in_scripts:.1%} of the corpus's letters are {' or '.join(scripts)}. Is it the right corpus? "
                "(--lang and --scripts say what is expected.)"
            )
        if counts.left_out > 0.1:
            yield (
                f"{counts.left_out:.0%} of the corpus lie in paragraphs beyond --block-size {settings.block_size} and are "
                "left out: blocks begin at paragraphs (lines). Break long lines up, or take longer blocks."
            )
        for part, blocks in zip(self.texts.replay, self.replay, strict=True):
            if blocks.counts.left_out > 0.1:
                yield (
                    f"{blocks.counts.left_out:.0%} of {part.name} do not fit into --block-size {settings.block_size} and are "
                    "left out. Take shorter paragraphs or conversations, or longer blocks."
                )
            if blocks.counts.refused:
                yield (
                    f"{blocks.counts.refused} of {blocks.counts.documents} conversations of {part.name} are left out: the chat "
                    "template refuses them. Many templates want user and assistant by turns."
                )
        if settings.warmup_steps >= self.steps:
            yield f"The training has {self.steps} steps and --warmup-steps {settings.warmup_steps}: it never gets warm."
        if not held_out:
            yield "Without --held-out, bits per byte are not measured."
        yield from forgotten(settings, held_out)

    def characters(self, steps: int) -> list[int]:
        """How much was read in the first steps of each text that is replayed, and of the corpus."""
        texts = (*self.replay, self.corpus)
        return [round(n * blocks.counts.kept) for n, blocks in zip(self.rows.passes(steps), texts, strict=True)]

    def measures(self, steps: int) -> dict[str, Any]:
        """Return what was read in the first steps, for the manifest."""
        counts = {name: value for name, value in asdict(self.corpus.counts).items() if name != "refused"}
        found: dict[str, Any] = {"characters": sum(self.characters(steps))}
        found["blocks"] = {k: round(v, 4) if isinstance(v, float) else v for k, v in counts.items()}
        if self.replay:
            found["replay"] = [
                {"text": part.name, "tokens": blocks.counts.tokens, "passes": round(passes, 3)}
                | ({"refused": blocks.counts.refused} if blocks.counts.refused else {})
                for part, blocks, passes in zip(self.texts.replay, self.replay, self.rows.passes(steps), strict=False)
            ]
        return found


def forgotten(settings: PretrainSettings, texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence for each text in another script than the corpus, where old weights are trained and nothing is replayed.

    Args:
        settings: of the training.
        texts: held-out texts by name, in pieces.
    """
    scripts = scripts_of(settings.lang, settings.scripts)
    if settings.train == "new-rows" or not scripts or settings.replay:
        return
    for name, pieces in texts.items():
        shares = script_shares(pieces)
        if shares and sum(shares.get(script, 0.0) for script in scripts) < _FEW:
            yield (
                f"The held-out text {name} is in {next(iter(shares))} script, and nothing like it is replayed: training the "
                "old weights on the corpus alone forgets it. Mix such texts in with --replay FILE=0.25."
            )
