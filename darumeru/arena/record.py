"""The record of an arena: a folder like that of a run.

    header.json           what was asked of which models, prompts and judge; its fingerprint is the arena's identity
    prompts.jsonl         the prompts, in order
    answers/N-MODEL.jsonl what each model answered
    verdicts.jsonl        for each pair and prompt the judge's two opinions and what came of them
    scores.json           strengths, win rates, what the judge is worth
    report.md, index.html the same for readers
    journal.jsonl         while it runs: the judge's answers
    manifest.json         written last: the arena is complete, and these are its files

Answers are computed in a folder of their own, `answers/MODEL-…` beside the arenas, so that another judge or one more model
makes no answer anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.arena.judge import Verdict
from darumeru.arena.prompts import Prompt
from darumeru.errors import UserError
from darumeru.files import read_json, read_jsonl, slug, write_json, write_jsonl
from darumeru.record.folder import is_sealed, seal, verify
from darumeru.requests import Answer, Request

FORMAT = 1
KIND = "arena"


@dataclass(frozen=True)
class Arena:
    """An arena's folder."""

    path: Path

    @property
    def complete(self) -> bool:
        """Return whether the arena was finished."""
        return is_sealed(self.path)

    @property
    def header(self) -> dict[str, Any]:
        """Return the header: what was asked."""
        header: dict[str, Any] = read_json(self.path / "header.json")
        return header

    @property
    def scores(self) -> dict[str, Any]:
        """Return what came out.

        Raises:
            UserError: nothing yet.
        """
        if not (self.path / "scores.json").is_file():
            raise UserError(
                f"Arena '{self.path}' has no scores yet: it was not finished. Start the same command again."
            )
        scores: dict[str, Any] = read_json(self.path / "scores.json")
        return scores

    @property
    def names(self) -> list[str]:
        """Return the models."""
        return [m["name"] for m in self.header["models"]]

    def prompts(self) -> Iterator[dict[str, Any]]:
        """Return the prompts, in order."""
        return (row for _, row in read_jsonl(self.path / "prompts.jsonl"))

    def answers(self, name: str) -> Iterator[dict[str, Any]]:
        """Return a model's answers, in the prompts' order."""
        return (row for _, row in read_jsonl(self.path / self._answers_file(self.names, name)))

    def verdicts(self) -> Iterator[dict[str, Any]]:
        """Return the verdicts, prompt by prompt."""
        return (row for _, row in read_jsonl(self.path / "verdicts.jsonl"))

    @staticmethod
    def _answers_file(names: Sequence[str], name: str) -> str:
        return f"answers/{names.index(name) + 1}-{slug(name)}.jsonl"

    def write(
        self,
        prompts: Sequence[Prompt],
        answers: Mapping[str, Mapping[int, tuple[Request, Answer]]],
        verdicts: Sequence[Verdict],
        scores: dict[str, Any],
    ) -> None:
        """Write all but the pages and the manifest."""
        names = self.names
        write_jsonl(self.path / "prompts.jsonl", [{"prompt": n} | p.to_json() for n, p in enumerate(prompts)])
        for name, given in answers.items():
            file = self.path / self._answers_file(names, name)
            write_jsonl(file, [answer_row(n, *given[n]) for n in sorted(given)])
        write_jsonl(self.path / "verdicts.jsonl", [v.to_json() for v in verdicts])
        write_json(self.path / "scores.json", scores)

    def finish(self) -> None:
        """Write the manifest: nothing is missing."""
        files = ["header.json", "prompts.jsonl", "verdicts.jsonl", "scores.json"]
        seal(self.path, sorted([*files, *(self._answers_file(self.names, name) for name in self.names)]))

    def verify(self) -> None:
        """Compare the files with the manifest.

        Raises:
            DarumeruError: a file was changed or lost since the arena was finished.
        """
        remedy = (
            f"Delete '{self.path}' and start the same command again: the models' answers are kept beside it, "
            "only the judge is asked anew."
        )
        verify(self.path, "arena", remedy)


def answer_row(number: int, request: Request, answer: Answer) -> dict[str, Any]:
    """Return an answer as a line of its file."""
    return (
        {
            "prompt": number,
            "text": answer.text,
            "tokens": len(answer.tokens),
            "finish": answer.finish,
            "prompt_tokens": len(request.prompt),
            "truncated": request.truncated,
        }
        | ({"approximate": True} if answer.approximate else {})
        | _thought(answer)
    )


def _thought(answer: Answer) -> dict[str, Any]:
    """Return the thought before an answer, where there is one."""
    if not answer.thought_tokens and not answer.unfinished:
        return {}
    return {"thought": answer.thought, "thought_tokens": len(answer.thought_tokens), "unfinished": answer.unfinished}
