"""Tasks: lm-eval tasks whose requests are choices, rankings and generations, and whose scores know what is independent.

A task is one YAML file under `tasks/` in lm-eval's own format, with `class: !function …` naming one of the classes here
or a class in a Python file beside it. Keys that lm-eval does not have stand under `metadata: darumeru:` (`Options`).
The same objects run in `darumeru run` (through `queries` and `score`) and, as far as it can say what they ask, in stock
lm-eval (through `construct_requests` and `process_results`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import jinja2
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task, TaskConfig
from lm_eval.filters import build_filter_ensemble
from pydantic import ValidationError

from darumeru.data.bundle import Bundle, Row, Split, local_name, open_bundle
from darumeru.errors import UserError
from darumeru.inference.prompt import conversation, plain_text
from darumeru.requests import Answer, Message, Query
from darumeru.scoring.aggregate import Aggregate, accuracy, bits_per_byte, mean
from darumeru.task.keys import TEMPLATES, check_keys, check_templates
from darumeru.task.options import Options, Wording
from darumeru.task.score import MetricValue, Score, table_of
from darumeru.task.template import fill, render, speaker

LIKELIHOOD_METRICS: dict[str, Aggregate] = {"logprob": mean, "bits_per_byte": bits_per_byte}
"""With `likelihood`: the mean log-probability of a token of the gold answer, and the bits that a byte of it takes."""


class DarumeruTask(Task):  # type: ignore[misc]
    """A task of the suite; subclasses say what is asked (`queries`) and what an answer is worth (`score`).

    Args:
        config: the task's YAML. `metadata.data` is the bundle (`hub`, `mini`, a folder or a `Bundle`; default `hub`),
            `metadata.wording` a `Wording`; both are set through lm-eval's `TaskManager(metadata=…)`.

    Raises:
        UserError: the configuration or the data is not as it must be.
    """

    METRICS: ClassVar[dict[str, Aggregate]] = {"acc": accuracy}
    SCORING: ClassVar[int] = 1
    """Version of what the metrics compute; a change of any of them raises it, so that records tell old numbers from new."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        name = str(config.get("task"))
        check_keys(name, config)
        metadata = dict(config.get("metadata") or {})
        # lm-eval writes into what it is given. The metadata hold the bundle, which is not copied.
        keys = deepcopy({k: v for k, v in config.items() if k not in ("class", "metadata")})
        try:
            self._config = TaskConfig(**keys, metadata=config.get("metadata"))
            self.options = Options(**(metadata.get("darumeru") or {}))
        except (TypeError, ValidationError) as error:
            raise UserError(f"Task '{name}': {_first(error)}") from None
        self.likelihood = self.options.likelihood or bool(metadata.get("likelihood"))
        missing = set(self.primary) - set(self.metrics)
        if missing:
            raise UserError(f"Task '{name}' has no metric '{missing.pop()}'; it has: {', '.join(self.metrics)}.")
        self.VERSION = metadata.get("version", 0)
        self.wording: Wording | None = metadata.get("wording", {}).get(name)
        if self.wording is not None:
            for key, value in self.wording.model_dump(exclude_none=True, exclude={"headline"}).items():
                setattr(self._config, key, value)
        own = self.wording.headline if self.wording is not None else None
        self._headline = self.options.headline if own is None else own
        check_templates(name, {key: getattr(self._config, key) for key in TEMPLATES} | {"headline": self._headline})
        self.corpus: Path | None = metadata.get("corpus")
        data = metadata.get("data", "hub")
        self.bundle: Bundle = open_bundle(data) if isinstance(data, str) else data
        self.DATASET_PATH = self.config.dataset_path
        self.DATASET_NAME = self.config.dataset_name
        self.OUTPUT_TYPE = self.config.output_type
        self._filters = [build_filter_ensemble("none", [["take_first", None]])]
        self._instances = None
        self.fewshot_rnd = None
        self._docs: list[Row] | None = None
        self._shots: dict[Any, list[Row]] | None = None
        self._examples: dict[int, list[Message]] = {}

    # -- rows ---------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.config.task)

    @property
    def worded_here(self) -> bool:
        """Whether the prompt's words are the task file's; else the rows bring their own `messages`."""
        return self.config.doc_to_text is not None

    @property
    def dataset(self) -> str:
        """The data set's folder name in a bundle."""
        return local_name(self.config.dataset_path, self.config.dataset_name)

    def split(self, split: str) -> Split:
        """Return the rows of a split."""
        return self.bundle.load(self.config.dataset_path, self.config.dataset_name, split)

    def sources(self) -> dict[str, Any]:
        """Return for each split that is used where it came from and its fingerprint."""
        return {split: self.split(split).source for split in self.splits()}

    def splits(self) -> list[str]:
        """Return the splits that the task reads: the test split, then the few-shot split if it takes examples."""
        fewshot = self.config.fewshot_split if self.config.num_fewshot != 0 else None
        return list(dict.fromkeys(filter(None, (self.config.test_split, fewshot))))

    def docs(self) -> list[Row]:
        """Return the test rows, checked."""
        if self._docs is None:
            rows = self.split(self.config.test_split).rows[: self.options.max_docs]
            if not rows:
                raise UserError(f"Task '{self.name}': data set '{self.dataset}' has no rows to test.")
            for index, row in enumerate(rows):
                self._checked(index, row)
            self._docs = rows
        return self._docs

    def _checked(self, index: int, row: Row) -> None:
        if fault := self.check(row):
            raise UserError(
                f"Task '{self.name}': data set '{self.dataset}', split '{self.config.test_split}', "
                f"row {index + 1}: {fault}. 'darumeru data check DIR' lists all faults of a bundle."
            )

    def check(self, doc: Row) -> str | None:
        """Return what is wrong with a row, naming the field; None if nothing is."""
        try:
            queries = self.asked(doc)
            self.gold(doc)
        except KeyError as error:
            return f"field {error} is missing"
        except jinja2.UndefinedError as error:
            return f"field {error}"
        except (ValueError, TypeError, IndexError, AttributeError, jinja2.TemplateError) as error:
            return f"{error}"
        for query in queries:
            if any(not m["content"].strip() for m in query.messages):
                return "field 'messages': a turn is empty"
        return None

    def sample(self, limit: int | None, seed: int) -> list[int]:
        """Return the indices of the documents to evaluate: all, or a seeded random sample of whole clusters, in order.

        Tasks on the same data set get the same sample.
        """
        docs = self.docs()
        part = max(1, round(self.options.fraction * len(docs)))
        limit = part if limit is None else min(limit, part)
        if limit >= len(docs):
            return list(range(len(docs)))
        clusters: dict[str, list[int]] = {}
        for index, doc in enumerate(docs):
            clusters.setdefault(self.cluster(doc) or f"\0{index}", []).append(index)
        order = list(clusters.values())
        random.Random(f"{seed}:{self.dataset}:{self.config.test_split}").shuffle(order)
        chosen: list[int] = []
        for indices in order:
            if len(chosen) >= limit:
                break
            chosen += indices
        return sorted(chosen)

    # -- words --------------------------------------------------------------------------------------------------------

    def fields(self, doc: Row) -> dict[str, Any]:
        """Return what a template may use: the row's fields, and the row itself's `inputs` by name."""
        return {**(doc.get("inputs") or {}), **doc}

    def _say(self, template: str, doc: Row) -> str:
        return render(template, self.fields(doc))

    def messages(self, doc: Row, with_answer: bool = False) -> list[Message]:
        """Return the conversation of a row: its own `messages`, or the turns that the task's wording makes of it.

        Args:
            doc: the row.
            with_answer: as a few-shot example, that is with its answer.
        """
        prefix = self.config.gen_prefix and self._say(self.config.gen_prefix, doc)
        if self.config.doc_to_text is None:
            turns = [
                {"role": speaker(m["role"]), "content": fill(m["content"], self.fields(doc))} for m in doc["messages"]
            ]
            if prefix is not None and not with_answer:
                turns = [t for i, t in enumerate(turns) if i < len(turns) - 1 or t["role"] != "assistant"]
                turns += [{"role": "assistant", "content": prefix}] if prefix else []
            return turns
        turns = [{"role": "user", "content": self._say(self.config.doc_to_text, doc)}]
        if with_answer:
            turns.append({"role": "assistant", "content": " ".join(filter(None, (prefix, self.target(doc))))})
        elif prefix:
            turns.append({"role": "assistant", "content": prefix})
        return turns

    def target(self, doc: Row) -> str:
        """Return an example's answer in words."""
        return self._say(self.config.doc_to_target, doc) if self.config.doc_to_target else str(self.gold(doc))

    def fewshot(self, doc: Row, count: int) -> list[list[Message]]:
        """Return the first `count` example conversations for a document, none of them the document itself.

        They come in the order in which they stand in the prompt: the first example nearest to the question, unless the task's
        `fewshot_ascending` says otherwise.
        """
        if count == 0 or self.config.num_fewshot == 0 or not self.config.fewshot_split:
            return []
        match = self.options.fewshot_match
        if self._shots is None:
            self._shots = {}
            for row in self.split(self.config.fewshot_split).rows[self.options.fewshot_start :]:
                self._shots.setdefault(row[match] if match else None, []).append(row)
        shots = self._shots.get(doc[match] if match else None, [])
        rows = list(islice((r for r in shots if r is not doc and r != doc), count))
        # An example's conversation is one object for all documents: a run has thousands of prompts with it.
        made = self._examples
        ordered = rows if self.options.fewshot_ascending else reversed(rows)
        return [made.get(id(r)) or made.setdefault(id(r), self.messages(r, with_answer=True)) for r in ordered]

    def headline(self, doc: Row) -> str:
        """Return what stands once in the prompt, before its first user turn; empty for nothing."""
        return self._say(self._headline, doc) if self._headline else ""

    def described(self, doc: Row) -> list[Query]:
        """Return the queries about a document, each with the task's description as the system turn of its prompt."""
        text = self.config.description and self._say(self.config.description, doc)
        return [replace(q, system=text) for q in self.queries(doc)] if text else self.queries(doc)

    # -- what is asked and measured ----------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, Aggregate]:
        """The metrics of the task as it is asked."""
        return LIKELIHOOD_METRICS if self.likelihood else self.METRICS

    @property
    def primary(self) -> tuple[str, ...]:
        """The metrics whose mean is the score of the task as it is asked."""
        return ("logprob",) if self.likelihood else self.options.primary

    @property
    def is_share(self) -> bool:
        """Whether the score is a share, of which more is better: only such are averaged with other tasks'."""
        return not self.likelihood and self.higher_is_better()["score"]

    def asked(self, doc: Row) -> list[Query]:
        """Return what is asked about a document: `queries`, or the likelihood of its gold answer."""
        if not self.likelihood:
            return self.described(doc)
        query, gold = self.described(doc)[0], self.gold_text(doc)
        return [
            Query("likelihood", query.messages, query.headline, options=(gold,), reference=gold, system=query.system)
        ]

    def rated(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return what the answers to `asked` are worth."""
        if not self.likelihood:
            return self.score(doc, answers, reference_tokens)
        total, tokens = answers[0].logprobs[0], reference_tokens[0] or 1
        size = len(self.gold_text(doc).encode())
        bits = -total / math.log(2)
        return Score(
            {"logprob": total / tokens, "bits_per_byte": bits / max(size, 1), "bits": bits, "bytes": float(size)},
            cluster=self.cluster(doc),
            stratum=self.stratum(doc),
        )

    def gold_text(self, doc: Row) -> str:
        """Return the gold answer as the model would write it."""
        gold = self.gold(doc)
        return str(gold[0] if isinstance(gold, list) else gold)

    # -- what subclasses say ------------------------------------------------------------------------------------------

    def queries(self, doc: Row) -> list[Query]:
        """Return what is asked about a document."""
        raise NotImplementedError

    def gold(self, doc: Row) -> Any:
        """Return the right answer, as the record shows it."""
        return doc["outputs"]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return what the answers to a document's queries are worth.

        Args:
            doc: the row.
            answers: one for each of `queries(doc)`, in order.
            reference_tokens: for each of them the tokens of its query's `reference`, None where it has none.
        """
        raise NotImplementedError

    def cluster(self, doc: Row) -> str | None:
        """Return what a document shares with others so that they are not independent; None if nothing."""
        return None

    def stratum(self, doc: Row) -> str | None:
        """Return the stratum of a document."""
        return str(doc[self.options.stratify]) if self.options.stratify else None

    # -- lm-eval ------------------------------------------------------------------------------------------------------

    def has_training_docs(self) -> bool:
        """See lm-eval."""
        return False

    def has_validation_docs(self) -> bool:
        """See lm-eval."""
        return False

    def has_test_docs(self) -> bool:
        """See lm-eval."""
        return True

    def test_docs(self) -> list[Row]:
        """See lm-eval."""
        return self.docs()

    def doc_to_text(self, doc: Row) -> str:
        """See lm-eval."""
        return plain_text(self.messages(doc))

    def doc_to_target(self, doc: Row) -> str:
        """See lm-eval."""
        return self.target(doc)

    def fewshot_context(
        self,
        doc: Row,
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = True,
        chat_template: Callable[..., str] | None = None,
        gen_prefix: str | None = None,
    ) -> list[str]:
        """See lm-eval; one context for each query, examples as turns, none dropped."""
        shots = self.fewshot(doc, num_fewshot)
        if system_instruction:
            shots.insert(0, [{"role": "system", "content": system_instruction}])
        contexts = []
        for query in self.described(doc):
            messages = conversation(query, shots)
            if apply_chat_template and chat_template is not None:
                open_turn = messages[-1]["role"] == "assistant"
                contexts.append(chat_template(messages, add_generation_prompt=not open_turn))
            else:
                contexts.append(plain_text(messages))
        return contexts

    def construct_requests(self, doc: Row, ctx: list[str], **kwargs: Any) -> list[Instance]:
        """See lm-eval; choices become log-likelihoods, generations `generate_until`. Rankings have no stock form."""
        metadata = kwargs["metadata"]
        requests: list[tuple[str, tuple[Any, ...]]] = []
        for query, context in zip(self.queries(doc), ctx, strict=True):
            if query.kind == "choose":
                requests += [("loglikelihood", (context, " " + label)) for label in query.options]
            elif query.kind == "generate":
                until = list(query.until) or ["\n\n"]
                arguments = {"until": until, "max_gen_toks": query.max_tokens, "do_sample": False}
                requests.append(("generate_until", (context, arguments)))
            else:
                raise UserError(f"Task '{self.name}' ranks sentences, which stock lm-eval cannot: use 'darumeru run'.")
        return [
            Instance(request_type=kind, doc=doc, arguments=arguments, idx=index, metadata=metadata)
            for index, (kind, arguments) in enumerate(requests)
        ]

    def process_results(self, doc: Row, results: Sequence[Any]) -> dict[str, MetricValue]:
        """See lm-eval."""
        left = iter(results)
        answers = []
        for query in self.queries(doc):
            if query.kind == "choose":
                answers.append(Answer("", logprobs=tuple(float(next(left)[0]) for _ in query.options)))
            else:
                text = next(left)
                answers.append(Answer("", text=str(text), tokens=tuple(getattr(text, "token_ids", ()))))
        score = self.score(doc, answers, [None] * len(answers))
        metrics = {name: score.metrics[name] for name in self.metrics}
        metrics["score"] = fmean(score.metrics[name] for name in self.primary)
        return {name: MetricValue(value, score) for name, value in metrics.items()}

    def aggregation(self) -> dict[str, Callable[[Iterable[MetricValue]], float]]:
        """See lm-eval; `score` is the task's primary score."""

        def of(names: Sequence[str]) -> Callable[[Iterable[MetricValue]], float]:
            def aggregate(values: Iterable[MetricValue]) -> float:
                table = table_of([value.score for value in values])
                return float(sum(self.metrics[n](table, n, table.ones())[0] for n in names) / len(names))

            return aggregate

        return {n: of([n]) for n in self.metrics} | {"score": of(self.primary)}

    def higher_is_better(self) -> dict[str, bool]:
        """See lm-eval; of bits per byte the fewer the better."""
        better = {name: aggregate is not bits_per_byte for name, aggregate in self.metrics.items()}
        return better | {"score": all(better[name] for name in self.primary)}


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
