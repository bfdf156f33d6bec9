"""Does another framework say the same of a model? Asks ours what the other was asked, by a file, and prints where they differ.

    python benchmarks/parity.py --reference FILE --model DIR [--data mini] [--num-fewshot N] [--mode foundation]
    python benchmarks/parity.py --make FILE --model DIR --tasks rcb,multiq [--data mini] [--limit 4] [--num-fewshot N]

`--make` writes such a file from plain transformers in float32, which knows nothing of our engines. FILE is JSON:

    {"framework": "its name and version", "items": [
      {"id": "rcb/0/0", "kind": "choose", "prompt": "Query: …", "prompt_tokens": [1, …], "labels": ["1", "2", "3"],
       "probabilities": [0.2, 0.5, 0.3]},
      {"id": "sum_extractive/0/0", "kind": "rank", "messages": [{"role": "user", "content": "…"}, …],
       "options": ["A sentence.", …], "logprobs": [-2.5, …], "ranking": [3, 0, …]},
      {"id": "multiq/0/0", "kind": "generate", "prompt": "Query: …", "max_tokens": 64, "until": ["\\n\\n"],
       "tokens": [17, …]}]}

* `id`: `task/row/query` of our task, both counted from 0; any other text where `--data` is not given.
* The prompt: `prompt` as text, or `messages` for our template, or both; `prompt_tokens` as they were sent, with BOS or without.
* choose: `probabilities` or `logprobs` of the labels, a label being worth its better spelling (with or without a space).
* rank: `logprobs`, means over the first tokens of each option, as many as the shortest has; `ranking`, the best first; or both.
* generate: `tokens`, greedy; what comes after the end of our answer (an end-of-sequence token, a blank line) is not compared.

With `--data` our prompts are those of our tasks on that data, else those of `messages`. They are compared as text and as tokens.
Numbers are compared on the *file's* prompt, where it has one, so that a difference is the engine's alone; `--own-prompts` takes
ours. The exit code is 1 where more differs than `--max-difference` (of a probability or log-probability), `--max-changed`
(choices, rankings, answers) and `--max-prompts` (texts or tokens) allow.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from darumeru.errors import DarumeruError, UserError
from darumeru.evaluation import prepare, settings_of
from darumeru.files import write_json
from darumeru.inference.asking import longest_input
from darumeru.inference.opened import OpenedModel
from darumeru.inference.prompt import Prompter, plain_text
from darumeru.requests import Answer, Message, Query, Request
from darumeru.settings import Settings


class Item(BaseModel):
    """What the other framework was asked, and what it found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: Literal["choose", "rank", "generate"]
    prompt: str | None = None
    messages: list[Message] | None = None
    prompt_tokens: list[int] | None = None
    labels: list[str] = []
    options: list[str] = []
    probabilities: list[float] | None = None
    logprobs: list[float] | None = None
    ranking: list[int] | None = None
    max_tokens: int = 0
    until: list[str] = []
    tokens: list[int] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Item:
        if self.prompt is None and self.prompt_tokens is None and not self.messages:
            raise ValueError(f"'{self.id}' needs 'prompt', 'prompt_tokens' or 'messages'")
        choices = {"choose": self.labels, "rank": self.options}.get(self.kind, [])
        found = {"choose": self.probabilities or self.logprobs, "rank": self.logprobs or self.ranking}.get(self.kind)
        if self.kind == "generate":
            if self.tokens is None or self.max_tokens < 1:
                raise ValueError(f"'{self.id}' needs 'tokens' and 'max_tokens'")
        elif len(choices) < 2 or found is None or len(found) != len(choices):
            raise ValueError(f"'{self.id}' needs two or more labels (choose) or options (rank), and a number for each")
        if self.ranking is not None and sorted(self.ranking) != list(range(len(choices))):
            raise ValueError(f"'{self.id}': 'ranking' must name each option once, by its place from 0")
        return self

    @property
    def query(self) -> Query:
        """What is asked, in words."""
        messages = self.messages or [{"role": "user", "content": self.prompt or ""}]
        options = tuple(self.labels or self.options)
        return Query(self.kind, messages, options=options, max_tokens=self.max_tokens, until=tuple(self.until))


class Reference(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    framework: str
    items: list[Item]


def read(file: Path) -> Reference:
    """Return what the other framework said.

    Raises:
        UserError: there is no such file, or it is not as the module says.
    """
    try:
        reference = Reference.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"--reference '{file}' cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"--reference '{file}', {where or 'whole'}: {first['msg']}.") from None
    if not reference.items:
        raise UserError(f"--reference '{file}' has no items to compare.")
    ids = [item.id for item in reference.items]
    if twice := [id_ for id_ in ids if ids.count(id_) > 1]:
        raise UserError(f"--reference '{file}': '{twice[0]}' is the id of several items; give each one of its own.")
    return reference


# -- ours ---------------------------------------------------------------------------------------------------------------


def own_requests(reference: Reference, settings: Settings, data: bool) -> tuple[OpenedModel, dict[str, Request]]:
    """Return the model, and by id what we would ask it: of our tasks, or of the messages that an item brings."""
    if data:
        plan = prepare(settings)
        ours = {r.id: r for r in plan.requests}
        if unknown := [item.id for item in reference.items if item.id not in ours]:
            raise UserError(f"'{unknown[0]}' is no request of our tasks on --data {settings.data}, few-shot as asked.")
        return plan.opened, ours
    opened = OpenedModel.of(settings, mode=settings.mode)
    prompter = opened.prompter()
    return opened, {i.id: r for i in reference.items if i.messages for r in prompter.requests([(i.id, i.query, [])])}


def asked(item: Item, own: Request | None, prompter: Prompter, own_prompts: bool) -> Request:
    """Return the request whose numbers are compared: on the file's prompt where it has one, unless ours is wanted."""
    theirs = prompter.requests([(item.id, item.query, [])])[0]
    if own_prompts or (item.prompt is None and item.prompt_tokens is None):
        if own is None:
            raise UserError(f"'{item.id}' has no messages, so that no prompt of ours can be made of it: give --data.")
        tokens = own.prompt
    else:
        tokens = tuple(item.prompt_tokens or prompter.encode([item.prompt or ""])[0])
    return replace(theirs, prompt=tokens, max_tokens=item.max_tokens, until=tuple(item.until))


def answers(opened: OpenedModel, requests: Sequence[Request]) -> dict[str, Answer]:
    """Return our answers by id."""
    with opened.load(longest_input(requests)) as engine:
        found = {answer.id: answer for part in engine.answers(requests) for answer in part}
    if failed := [a for a in found.values() if a.error]:
        raise DarumeruError(f"'{failed[0].id}' was not answered: {failed[0].error}")
    return found


# -- where they differ ------------------------------------------------------------------------------------------------


@dataclass
class Difference:
    """Where a kind of items differs."""

    items: int = 0
    texts: int = 0
    """Prompts with another text."""
    tokens: int = 0
    """Prompts with other tokens."""
    changed: int = 0
    """Other choice, ranking or answer."""
    probability: float = 0.0
    """Largest difference of a probability."""
    logprob: float = 0.0
    """Largest difference of a log-probability."""
    words: list[str] = field(default_factory=list)


def _context(ours: Sequence[Any], theirs: Sequence[Any], width: int) -> str:
    """Return what stands on both sides where they part."""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    begin = max(0, at - width // 2)
    return f"at {at}: ours {ours[begin : at + width]!r}, theirs {theirs[begin : at + width]!r}"


def compare_prompts(item: Item, own: Request | None, prompter: Prompter, found: Difference) -> None:
    """Compare the file's prompt with ours, as text and as tokens."""
    if own is not None and item.prompt is not None and own.text != item.prompt:
        found.texts += 1
        found.words.append(f"{item.id}: prompt, {_context(own.text, item.prompt, 40)}")
    if item.prompt_tokens is not None and (own is not None or item.prompt is not None):
        tokens = list(own.prompt) if own is not None else prompter.encode([item.prompt or ""])[0]
        if tokens != item.prompt_tokens:
            found.tokens += 1
            found.words.append(f"{item.id}: tokens of the prompt, {_context(tokens, item.prompt_tokens, 6)}")


def compare_answers(item: Item, answer: Answer, found: Difference) -> None:
    """Compare what the file says with our answer."""
    found.items += 1
    if item.kind == "generate":
        theirs = item.tokens or []
        same = list(answer.tokens) == theirs[: len(answer.tokens)]
        same = same and (answer.finish == "stop" or len(theirs) == len(answer.tokens))
        if not same:
            found.changed += 1
            found.words.append(f"{item.id}: answer, {_context(list(answer.tokens), theirs, 6)}")
        return
    ours = list(answer.logprobs)
    if item.probabilities is not None:
        pairs = zip(map(math.exp, ours), item.probabilities, strict=True)
        found.probability = max(found.probability, *(abs(a - b) for a, b in pairs))
    if item.logprobs is not None:
        found.logprob = max(found.logprob, *(abs(a - b) for a, b in zip(ours, item.logprobs, strict=True)))
    theirs_by = item.logprobs or item.probabilities
    mine, other = _order(ours), item.ranking if item.ranking is not None else _order(theirs_by or [])
    names = item.labels or [str(i) for i in range(len(ours))]
    size = 1 if item.kind == "choose" else len(mine)
    if mine[:size] != other[:size]:
        found.changed += 1
        at = next(i for i in range(size) if mine[i] != other[i])
        gap = ours[mine[at]] - ours[other[at]]
        place = f"place {at + 1}, ours {names[mine[at]]}, theirs {names[other[at]]}"
        found.words.append(f"{item.id}: {place}, apart by {gap:.1e} in ours")


def _order(values: Sequence[float]) -> list[int]:
    """Return the places of values, the largest first; of equals the first."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def differences(reference: Reference, settings: Settings, data: bool, own_prompts: bool) -> dict[str, Difference]:
    """Return by kind where ours differs from what the file says."""
    opened, own = own_requests(reference, settings, data)
    prompter = opened.prompter()
    requests = [asked(item, own.get(item.id), prompter, own_prompts) for item in reference.items]
    given = answers(opened, requests)
    found: dict[str, Difference] = {}
    for item in reference.items:
        difference = found.setdefault(item.kind, Difference())
        compare_prompts(item, own.get(item.id), prompter, difference)
        compare_answers(item, given[item.id], difference)
    return found


# -- a reference from plain transformers --------------------------------------------------------------------------------


class Plain:
    """Forward passes of transformers' model class in float32, one text at a time, without a cache."""

    def __init__(self, folder: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def continuation(self, prompt: list[int], tokens: list[int]) -> list[float]:
        """Return the log-probability of each token of a continuation."""
        with self.torch.inference_mode():
            logits = self.model(self.torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            logprobs = self.torch.log_softmax(logits.double(), dim=-1)
        return [float(row[token]) for row, token in zip(logprobs, tokens, strict=True)]

    def after(self, prompt: list[int]) -> list[float]:
        """Return the log-probability of each token of the vocabulary as the one behind a prompt."""
        with self.torch.inference_mode():
            logits = self.model(self.torch.tensor([prompt])).logits[0, -1]
            return [float(value) for value in self.torch.log_softmax(logits.double(), dim=-1)]

    def inside(self, text: str) -> list[int]:
        """Return the tokens of a text as it follows a colon."""
        colon, whole = (self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (":", ":" + text))
        return list(whole[len(colon) :])

    def generate(self, prompt: list[int], count: int) -> list[int]:
        """Return greedy tokens, with the one that ends them."""
        with self.torch.inference_mode():
            ids = self.model.generate(
                self.torch.tensor([prompt]), do_sample=False, max_new_tokens=count,
                pad_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        return [int(token) for token in ids[0, len(prompt) :]]

    def prompt(self, messages: list[Message], mode: str) -> tuple[str, list[int]]:
        """Return text and tokens of a prompt, through transformers' chat template or as base models get it."""
        if mode == "foundation":
            text = plain_text(messages)
            return text, list(self.tokenizer(text)["input_ids"])
        last = messages[-1]["role"] == "assistant"
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not last, continue_final_message=last
        )
        return text, list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def make(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the items of a reference: our tasks' queries, answered by plain forward passes; truncated prompts are left out."""
    plan = prepare(settings)  # for the words, and how many examples fit: every number comes from `Plain`
    requests = {r.id: r for r in plan.requests}
    plain = Plain(settings.model)
    for name, task in plan.tasks.items():
        for index in plan.documents[name]:
            for number, query in enumerate(task.asked(task.docs()[index])):
                request = requests[f"{name}/{index}/{number}"]
                if messages := list(request.messages):
                    text, tokens = plain.prompt(messages, plan.mode)
                    item = {"id": request.id, "kind": query.kind, "prompt": text, "prompt_tokens": tokens}
                    yield item | _plainly(plain, query, tokens, plan.mode, request.max_tokens)


def _plainly(plain: Plain, query: Query, prompt: list[int], mode: str, count: int) -> dict[str, Any]:
    """Return a query's answer by plain forward passes."""
    if query.kind == "choose":
        after = plain.after(prompt)

        def value(spelling: list[int]) -> float:
            rest = spelling[1:]
            return after[spelling[0]] + (sum(plain.continuation(prompt + spelling[:1], rest)) if rest else 0.0)

        best = [max(value(plain.inside(s)) for s in (label, " " + label)) for label in query.options]
        return {"labels": list(query.options), "probabilities": [math.exp(v) for v in best]}
    if query.kind == "rank":
        tokens = [plain.inside(" " + option) for option in query.options]
        shortest = min(map(len, tokens))
        means = [sum(plain.continuation(prompt, t[:shortest])) / shortest for t in tokens]
        return {"options": list(query.options), "logprobs": means, "ranking": _order(means)}
    until = [] if mode == "instruct" else list(query.until) or ["\n\n"]
    return {"max_tokens": count, "until": until, "tokens": plain.generate(prompt, count)}


# -- command line -------------------------------------------------------------------------------------------------------


def report(found: dict[str, Difference], framework: str) -> None:
    """Print the table, and what differs."""
    print(f"Ours against {framework}")
    print(
        f"{'kind':<10}{'items':>6}{'prompts: text':>15}{'tokens':>8}{'changed':>9}{'probability':>13}{'log-probability':>17}"
    )
    for kind, d in found.items():
        print(f"{kind:<10}{d.items:>6}{d.texts:>15}{d.tokens:>8}{d.changed:>9}{d.probability:>13.1e}{d.logprob:>17.1e}")
    for line in (line for d in found.values() for line in d.words):
        print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write a reference; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--reference", type=Path)
    source.add_argument("--make", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data")
    parser.add_argument("--tasks", help="--make: tasks to ask, with commas between them")
    parser.add_argument("--limit", type=int, help="--make: documents a task")
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--engine", default="hf")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--own-prompts", action="store_true")
    parser.add_argument("--max-difference", type=float, default=1e-4)
    parser.add_argument("--max-changed", type=int, default=0)
    parser.add_argument("--max-prompts", type=int, default=0)
    options = parser.parse_args(arguments)
    common = {name: getattr(options, name) for name in ("model", "mode", "engine", "dtype", "num_fewshot")}
    if options.make:
        names = tuple(filter(None, (options.tasks or "").split(",")))
        settings = settings_of(**common, data=options.data or "mini", tasks=names, limit=options.limit)
        write_json(options.make, {"framework": "transformers, float32", "items": list(make(settings))})
        return 0
    reference = read(options.reference)
    names = tuple(dict.fromkeys(item.id.split("/")[0] for item in reference.items)) if options.data else ()
    settings = settings_of(**common, data=options.data or "mini", tasks=names)
    found = differences(reference, settings, bool(options.data), options.own_prompts)
    report(found, reference.framework)
    beyond = [
        any(max(d.probability, d.logprob) > options.max_difference for d in found.values()),
        sum(d.changed for d in found.values()) > options.max_changed,
        sum(max(d.texts, d.tokens) for d in found.values()) > options.max_prompts,
    ]
    return int(any(beyond))


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
