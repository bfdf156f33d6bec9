"""The data of calibration: the original model's own answers, graded by a judge, and texts (arXiv 2412.21140)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from annotated_types import Ge

from darumeru.contamination.settings import WORDS
from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError, UserError
from darumeru.options import Option
from lep.calibration.chat import THOUGHT
from lep.calibration.continuations import continuation_example
from lep.calibration.copies import CHARACTERS, benchmark_texts, copy_example, draw_copies
from lep.calibration.judge import GRADES, By, grade, question
from lep.calibration.prompts import Prompt, read_prompts
from lep.calibration.report import describe
from lep.model.folders import folder_fingerprint
from lep.model.manifest import versions
from lep.options import Field

if TYPE_CHECKING:
    from darumeru.evaluation import Progress
    from darumeru.requests import Message

FORMAT = 1


@dataclass(frozen=True)
class Pair:
    """A prompt with an answer."""

    messages: tuple[Message, ...]
    answer: str
    source: str
    """`self` (the model's), `given` (came with the prompt), `copy` or `continuation`."""
    grade: int | None = None
    thought: str = ""
    """Before the answer."""

    @property
    def asked(self) -> str:
        """Return what the user says."""
        return "\n\n".join(m["content"] for m in self.messages if m["role"] == "user")

    def row(self) -> dict[str, Any]:
        """As the output keeps it."""
        turn = {"role": "assistant", "content": self.answer} | ({THOUGHT: self.thought} if self.thought else {})
        graded = {} if self.grade is None else {"grade": self.grade}
        return {"messages": [*self.messages, turn], "source": self.source, **graded}


def make_data(
    model: Annotated[str | None, Option("The original instruct model, which answers; not needed with --answers.")],
    prompts: Annotated[
        Sequence[str | Path], Option("Prompts: .jsonl (.gz) or .txt. Repeated ones are left out.", many="spread")
    ],
    output: Annotated[str | Path, Option("File to write (.jsonl); its report is written last.")],
    *,
    engine: Annotated[str, Option("auto, hf, vllm or api.")] = "auto",
    settings: Annotated[
        Mapping[str, Any] | None,
        Option(
            "KEY=VALUE: dtype, device, base_url, model_args.KEY, thinking, … as darumeru run has.",
            flag="--engine-set",
            many="spread",
        ),
    ] = None,
    answers: Annotated[
        bool, Option("Keep the answers that the prompts come with; those without are left out.", flag="--answers")
    ] = False,
    system: Annotated[str | None, Option("System turn for prompts that have none.")] = None,
    limit: Annotated[int | None, Option("Only the first prompts."), Ge(1)] = None,
    max_tokens: Annotated[int, Option("Longest answer; truncated ones are left out.")] = 1024,
    judge: Annotated[str | None, Option("A model that grades the answers, 1 to 5; given ones are not graded.")] = None,
    judge_engine: Annotated[str, Option("auto, hf, vllm or api.")] = "auto",
    judge_settings: Annotated[
        Mapping[str, Any] | None, Option("As --engine-set, for the judge.", flag="--judge-set", many="spread")
    ] = None,
    judge_by: Annotated[By, Option("text (the grade it writes) or labels (its most probable digit).")] = "text",
    min_grade: Annotated[int, Option("Answers with a lower or unreadable grade are left out.")] = 4,
    copy: Annotated[int, Option("How many texts to copy to add.")] = 0,
    continuations: Annotated[int, Option("How many texts to write on from their beginning to add.")] = 0,
    copy_corpus: Annotated[
        Sequence[str | Path], Option("Texts to draw both from; see --corpus of lep vocab.", many="spread")
    ] = (),
    copy_characters: tuple[int, int] = CHARACTERS,
    exclude: Annotated[
        Sequence[str | Path], Option("Training texts that these must not overlap with.", many="spread")
    ] = (),
    bundles: Annotated[
        Sequence[str],
        Option("Benchmark bundles that they must not overlap with; mini always counts.", flag="--data", many="spread"),
    ] = (),
    overlap_words: Annotated[int, Option("So many words in a row in common are an overlap."), Ge(2)] = WORDS,
    field: Field = "text",
    seed: Annotated[int, Option("Of the draw of texts.")] = 0,
    force: Annotated[bool, Option("Replace an output that was made otherwise.", flag="--force")] = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write chat examples to calibrate on, one JSON object a line, and a report on them; returns the report.

    A line is `{"messages": […], "source": "self" | "given" | "copy" | "continuation", "grade": 1…5}`. A model that can think
    answers without a thought, unless `settings` have `thinking: on`; then its turn has `reasoning_content` too. Answers and
    grades are kept as they come in `OUTPUT.journal` (without the output's ending), so the same call resumes where it was
    stopped, and other prompts, grades or copies ask nothing twice. `OUTPUT.report.json` is written last: where it is, the data
    is whole.

    Args:
        settings: further settings of Darumeru's engine (`device`, `dtype`, `model_args`, `base_url`, `max_prompt_len`, …).
        judge_settings: see `settings`.
        copy_characters: shortest and greatest length of a text to copy or to write on.
        progress: is told how far each part is.

    Raises:
        UserError: a setting that is not possible, or an output of other settings.
        DarumeruError: nothing is left to train on.
        DarumeruError: an engine failed; what was answered is kept.
    """
    from darumeru.files import dumps, file_sha256, fingerprint, read_json, write_json, write_text
    from darumeru.record.folder import exclusive, unchanged

    target = Path(output)
    report_file, journals = target.with_suffix(".report.json"), target.with_suffix(".journal")
    _check(model, prompts, target, answers, judge, min_grade, (copy, continuations), copy_corpus, max_tokens)
    if judge_by not in get_args(By):
        raise UserError(f"--judge-by {judge_by!r} is not possible; choose one of {', '.join(get_args(By))}.")
    if not 0 < copy_characters[0] <= copy_characters[1]:
        raise UserError(f"--copy-min {copy_characters[0]} and --copy-max {copy_characters[1]} leave no text to copy.")
    asked: dict[str, Any] = {
        "model": None if answers or model is None else _named(model),
        "engine": engine,
        "settings": dict(settings or {}),
        "prompts": [_file(path) for path in prompts],
        "answers": answers,
        "system": system,
        "limit": limit,
        "max_tokens": max_tokens,
        "judge": None if judge is None else _named(judge),
        "judge_engine": judge_engine,
        "judge_settings": dict(judge_settings or {}),
        "judge_by": judge_by,
        "min_grade": min_grade,
        "copy": copy,
        **({"continuations": continuations} if continuations else {}),
        "copy_corpus": [_file(path) for path in copy_corpus],
        "copy_characters": list(copy_characters),
        "exclude": [_file(path) for path in exclude],
        "bundles": [Path(name).name for name in bundles],
        "overlap_words": overlap_words,
        "seed": seed,
    }
    identity = fingerprint(asked)
    if target.exists() and not force:
        done = read_json(report_file) if report_file.is_file() else {}
        if done.get("identity") == identity and unchanged(target, done.get("output", {}).get("sha256")):
            return dict(done)
        raise UserError(
            f"{target} is there already, made otherwise. Name another output, or add --force to replace it."
        )
    journals.mkdir(parents=True, exist_ok=True)
    with exclusive(journals):
        counts: Counter[str] = Counter()
        facts: dict[str, Any] = {}
        chosen = _prompts(prompts, system, limit, counts)
        # Texts to copy first: what is wrong with them shows before a model is asked for hours.
        copies, copied = _copies(
            copy, continuations, copy_corpus, copy_characters, exclude, bundles, overlap_words, field, seed
        )  # fmt: skip
        if answers:
            pairs = [Pair(p.messages, p.answer, "given") for p in chosen if p.answer is not None]
            counts["without_answer"] = len(chosen) - len(pairs)
        elif chosen:
            assert model is not None  # noqa: S101 - _check saw to it
            pairs, facts["model"] = _self_answers(
                model, engine, settings or {}, chosen, max_tokens, journals, counts, progress
            )
            if judge is not None and pairs:
                pairs, facts["judge"] = _graded(
                    pairs, judge, judge_engine, judge_settings or {}, judge_by, min_grade, journals, counts, progress
                )
        else:
            pairs = []
        grades = facts.get("judge", {}).pop("grades", None)
        if chosen and not pairs:
            # Not even with copies beside them: data without the answers that were asked for is not what was asked for.
            raise DarumeruError(
                f"Of the answers none is left ({_told(counts)}). Cut answers need a larger --max-tokens; for the others "
                f"see {journals}."
            )
        everything = [*pairs, *copies]
        text = "".join(dumps(pair.row()) + "\n" for pair in everything)
        report_file.unlink(missing_ok=True)
        write_text(target, text)
        sources = sorted({pair.source for pair in everything})
        report = {
            "format": FORMAT,
            "identity": identity,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "asked": asked,
            "counts": dict(counts),
            "grades": grades,
            "copies": copied,
            "data": {s: describe([(p.asked, p.answer) for p in everything if p.source == s]) for s in sources},
            "models": facts,
            "output": {"rows": len(everything), "sha256": file_sha256(target)},
            "versions": versions(),
        }
        write_json(report_file, report)
    return report


def _check(
    model: str | None,
    prompts: Sequence[str | Path],
    target: Path,
    answers: bool,
    judge: str | None,
    min_grade: int,
    drawn: tuple[int, int],
    copy_corpus: Sequence[str | Path],
    max_tokens: int,
) -> None:
    if target.suffix != ".jsonl":
        raise UserError(f"The output {target} must end in .jsonl; it holds one JSON object a line.")
    if not prompts and not any(drawn):
        raise UserError(
            "There is nothing to do: name --prompts FILE, or --copy N (or --continuations N) with --copy-corpus FILE."
        )
    if prompts and model is None and not answers:
        raise UserError("--prompts need --model, which answers them, or --answers, if they come with answers.")
    if answers and judge is not None:
        raise UserError(
            "--judge grades the answers of --model; answers that come with the prompts (--answers) are kept."
        )
    if not 1 <= min_grade <= len(GRADES):
        raise UserError(f"--min-grade {min_grade} is no grade; grades go from 1 to {len(GRADES)}.")
    if min(drawn) < 0 or any(drawn) != bool(copy_corpus):
        raise UserError(
            "--copy N (or --continuations N) and --copy-corpus FILE belong together: how many texts, and where they are "
            "drawn from."
        )
    if max_tokens < 1:
        raise UserError(f"--max-tokens {max_tokens} leaves no answer; 1 or more are needed.")


def _named(model: str) -> dict[str, Any]:
    """A model in a report: its name, never its path."""
    path = Path(model)
    return {"name": path.resolve().name, "fingerprint": folder_fingerprint(path)} if path.is_dir() else {"name": model}


def _file(source: str | Path) -> dict[str, Any]:
    """A file in a report: its name and what is in it."""
    from darumeru.files import file_sha256

    path = Path(source)
    if str(source).startswith("hub:"):
        return {"name": str(source)}
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return {"name": path.name, "sha256": file_sha256(path)}


def _prompts(files: Sequence[str | Path], system: str | None, limit: int | None, counts: Counter[str]) -> list[Prompt]:
    chosen: dict[str, Prompt] = {}
    for prompt in chain.from_iterable(read_prompts(Path(file)) for file in files):
        if system is not None and prompt.messages[0]["role"] != "system":
            prompt = Prompt(({"role": "system", "content": system}, *prompt.messages), prompt.answer)
        if prompt.key in chosen:
            counts["repeated_prompts"] += 1
        elif limit is not None and len(chosen) >= limit:
            break
        else:
            chosen[prompt.key] = prompt
    counts["prompts"] = len(chosen)
    return list(chosen.values())


def _self_answers(
    model: str,
    engine: str,
    settings: Mapping[str, Any],
    prompts: Sequence[Prompt],
    max_tokens: int,
    journals: Path,
    counts: Counter[str],
    progress: Progress | None,
) -> tuple[list[Pair], dict[str, Any]]:
    """The model's answers that are whole and say something."""
    from darumeru.evaluation import settings_of
    from darumeru.requests import Query
    from lep.calibration.ask import ask

    queries = [Query("generate", list(p.messages), max_tokens=max_tokens) for p in prompts]
    asked = ask(settings_of(model=model, engine=engine, **settings), queries, journals, "answers", progress)
    pairs = []
    for prompt, request, answer, rethought in zip(prompts, asked.requests, asked.answers, asked.rethought, strict=True):
        if answer is None:
            counts["unanswered"] += 1
        elif request.truncated:
            counts["prompt_too_long"] += 1
        elif answer.unfinished:
            counts["unfinished_thoughts"] += 1
        elif rethought:
            counts["thoughts_in_answers"] += 1
        elif answer.finish != "stop":
            counts["cut_answers"] += 1
        elif not answer.text.strip():
            counts["empty_answers"] += 1
        else:
            pairs.append(Pair(prompt.messages, answer.text.strip(), "self", thought=answer.thought))
    return pairs, asked.facts


def _graded(
    pairs: Sequence[Pair],
    judge: str,
    engine: str,
    settings: Mapping[str, Any],
    by: By,
    least: int,
    journals: Path,
    counts: Counter[str],
    progress: Progress | None,
) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs with a grade of at least `least`."""
    from darumeru.evaluation import settings_of
    from lep.calibration.ask import ask

    queries = [question(pair.asked, pair.answer, by) for pair in pairs]
    asked = ask(settings_of(model=judge, engine=engine, **settings), queries, journals, "grades", progress)
    given: Counter[int] = Counter()
    kept = []
    for pair, request, answer in zip(pairs, asked.requests, asked.answers, strict=True):
        value = grade(answer, by)
        if answer is None:
            counts["ungraded"] += 1
        elif request.truncated:
            counts["too_long_for_the_judge"] += 1
        elif value is None:
            counts["unparsable_grades"] += 1
        else:
            given[value] += 1
            if value >= least:
                kept.append(replace(pair, grade=value))
            else:
                counts["below_min_grade"] += 1
    return kept, {**asked.facts, "grades": {str(value): given[value] for value in range(1, len(GRADES) + 1)}}


def _copies(
    copies: int,
    continuations: int,
    corpus: Sequence[str | Path],
    characters: tuple[int, int],
    exclude: Sequence[str | Path],
    bundles: Sequence[str],
    words: int,
    field: str,
    seed: int,
) -> tuple[list[Pair], dict[str, Any] | None]:
    """The texts drawn, the first of them to be copied and the others to be written on; and how they were found."""
    if not copies + continuations:
        return [], None

    def others() -> Iterator[str]:
        yield from read_texts(exclude, field=field, halves=True)
        for name in dict.fromkeys(("mini", *bundles)):
            yield from benchmark_texts(name)

    drawn = draw_copies(
        read_texts(corpus, field=field), others(), copies + continuations, characters=characters, words=words, seed=seed
    )  # fmt: skip
    pairs = []
    for number, text in enumerate(drawn.texts):
        example, source = (copy_example, "copy") if number < copies else (continuation_example, "continuation")
        *asked, turn = example(text, number)
        pairs.append(Pair(tuple(asked), turn["content"], source))
    return pairs, {"eligible": drawn.eligible, "drawn": drawn.drawn, "overlapping": drawn.overlapping}


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items() if value)
