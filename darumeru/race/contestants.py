"""Who races: a finished run, whose answers are on disk, or a model that is asked as the race goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from darumeru.errors import DarumeruError, UserError
from darumeru.race.benchmark import RacedTask, raced_task
from darumeru.record.draws import aggregates_of, first_split
from darumeru.record.header import Header
from darumeru.record.run import Journal, Run
from darumeru.record.sample import GivenAnswer, Sample, table_of
from darumeru.record.scores import TaskResult
from darumeru.requests import Answer, Request, by_repeat
from darumeru.scoring.aggregate import AGGREGATES, Table
from darumeru.task.score import over_repeats

if TYPE_CHECKING:
    from darumeru.engines import Engine
    from darumeru.evaluation import Plan, Progress

OpenEngine = Callable[["Plan"], "Engine"]


class Contestant(Protocol):
    """One side of a race."""

    name: str
    run: Run
    header: Header
    tasks: Mapping[str, RacedTask]

    def cost(self, task: str) -> float:
        """Return the tokens of a document, prompt and longest answer, on average."""

    def answer(self, documents: Mapping[str, Sequence[int]]) -> None:
        """Have documents answered; those that are already cost nothing."""

    def value(self, task: str, document: int) -> float:
        """Return what the answer to a document is worth: the mean of the metrics with which the task counts."""

    def tokens(self, task: str, document: int) -> int:
        """Return the tokens of prompt and answer of an answered document."""

    def finish(self, progress: Progress | None = None) -> None:
        """Have all answered that its run asks, what does not count in the race too."""


@dataclass
class Recorded:
    """A finished run."""

    name: str
    run: Run
    header: Header
    tasks: Mapping[str, RacedTask]
    values: Mapping[str, Mapping[int, float]]
    spent: Mapping[str, Mapping[int, int]]

    @classmethod
    def of(cls, run: Run, only: Sequence[str] = (), like: Mapping[str, RacedTask] | None = None) -> Recorded:
        """Read a run.

        Args:
            run: a finished one.
            only: these tasks. [all that count in its suite's mean]
            like: tasks as they count for a model that it races against; they go before what the record says, which in old ones
                does not name how metrics are aggregated.

        Raises:
            UserError: it is not finished, or a task cannot be raced.
        """
        if not run.complete:
            raise UserError(
                f"Run '{run.path}' is not finished. Name its model instead: the answers that it has are used."
            )
        run.verify()
        header, scores = run.header, run.scores
        counted = [t for g in header.suite.groups if g.counts for t in g.tasks if t in scores.tasks]
        tasks, values, spent = {}, {}, {}
        for name in [t for t in counted if not only or t in only]:
            samples = sorted(run.samples(name), key=lambda s: s.id)
            task = (like or {}).get(name)
            if task is None or not _fits(task, samples):
                task = _task_of_record(name, scores.tasks[name], samples)
            tasks[name] = task
            values[name] = {s.id: sum(float(s.score[m]) for m in task.metrics) / len(task.metrics) for s in samples}
            spent[name] = {s.id: sum((r.prompt_tokens or 0) + _written(r.answer) for r in s.requests) for s in samples}
        return cls(header.model.name, run, header, tasks, values, spent)

    def cost(self, task: str) -> float:
        """See `Contestant`; what the answers did cost."""
        return sum(self.spent[task].values()) / len(self.spent[task])

    def answer(self, documents: Mapping[str, Sequence[int]]) -> None:
        """See `Contestant`; all are answered."""

    def finish(self, progress: Progress | None = None) -> None:
        """See `Contestant`; it is."""

    def value(self, task: str, document: int) -> float:
        """See `Contestant`."""
        return self.values[task][document]

    def tokens(self, task: str, document: int) -> int:
        """See `Contestant`."""
        return self.spent[task][document]


def _fits(task: RacedTask, samples: Sequence[Sample]) -> bool:
    """Return whether samples are the documents of a task, with its metrics."""
    documents = {d for unit in task.units for d in unit}
    return documents == {s.id for s in samples} and all(m in s.score for s in samples for m in task.metrics)


def _task_of_record(name: str, result: TaskResult, samples: Sequence[Sample]) -> RacedTask:
    table = table_of(samples)
    named = {m: AGGREGATES[a] for m, a in result.aggregates.items() if a in AGGREGATES}
    metrics = (aggregates_of(result, table) or {}) | named
    return raced_task(name, [s.id for s in samples], table, metrics, result.primary)


@dataclass
class Live:
    """A model that answers into the journal of its run."""

    name: str
    plan: Plan
    run: Run
    header: Header
    journal: Journal
    open_engine: OpenEngine
    stack: ExitStack
    """Holds the engine while the race goes."""
    tasks: Mapping[str, RacedTask] = field(init=False)
    requests: dict[tuple[str, int], list[Request]] = field(init=False)
    engine: Engine | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.tasks = raced_tasks(self.plan)
        self.requests = {}
        for request in self.plan.requests:
            task, document, _ = request.id.rsplit("/", 2)
            self.requests.setdefault((task, int(document)), []).append(request)

    def cost(self, task: str) -> float:
        """See `Contestant`."""
        from darumeru.inference.asking import answer_tokens

        found = [r for d in self.plan.documents[task] for r in self.requests[task, d]]
        return sum(r.prompt_tokens + answer_tokens(r) for r in found) / len(self.plan.documents[task])

    def answer(self, documents: Mapping[str, Sequence[int]]) -> None:
        """See `Contestant`.

        Raises:
            DarumeruError: the engine could not answer a request.
        """
        self._ask([r for task, chosen in documents.items() for d in chosen for r in self.requests[task, d]])

    def finish(self, progress: Progress | None = None) -> None:
        """See `Contestant`.

        Raises:
            DarumeruError: the engine could not answer a request.
        """
        self._ask(self.plan.requests, progress)

    def _ask(self, wanted: Sequence[Request], progress: Progress | None = None) -> None:
        from darumeru.inference.asking import ask

        if all(r.id in self.journal.answers for r in wanted):
            return
        faults, _ = ask(self._loaded(), wanted, self.journal, progress)
        if faults:
            first = next(iter(faults))
            raise DarumeruError(
                f"'{self.name}' could not answer {len(faults)} requests, the first is '{first}': {faults[first]}."
            )

    def _loaded(self) -> Engine:
        from darumeru.evaluation.execute import note_engine

        if self.engine is None:
            self.engine = self.stack.enter_context(self.open_engine(self.plan))
            note_engine(self.run, self.engine)
        return self.engine

    def value(self, task: str, document: int) -> float:
        """See `Contestant`."""
        asked, doc, answers = self.plan.tasks[task], self.plan.tasks[task].docs()[document], self.journal.answers
        score = over_repeats(
            [
                asked.rated(doc, [answers[r.id] for r in requests], [r.reference_tokens for r in requests])
                for requests in by_repeat(self.requests[task, document])
            ]
        )
        metrics = self.tasks[task].metrics
        return sum(float(score.metrics[m]) for m in metrics) / len(metrics)

    def tokens(self, task: str, document: int) -> int:
        """See `Contestant`."""
        requests = self.requests[task, document]
        return sum(r.prompt_tokens + _written(self.journal.answers[r.id]) for r in requests)


def _written(answer: Answer | GivenAnswer) -> int:
    """Return how many tokens a model generated for an answer and the thought before it."""
    return len(answer.thought_tokens) + len(answer.tokens)


def raced_tasks(plan: Plan) -> dict[str, RacedTask]:
    """Return the tasks of a plan that count in its suite's mean.

    Raises:
        UserError: one cannot be raced.
    """
    return {name: _task_of(plan, name) for name in plan.suite.counted}


def _task_of(plan: Plan, name: str) -> RacedTask:
    if name not in plan.tasks:
        others = ",".join(task for task in plan.suite.counted if task in plan.tasks)
        raise UserError(
            f"'{plan.model.name}' cannot race: {name} counts in the mean and cannot be asked ({plan.missing[name]}). Try again "
            f"later, or leave it out: --tasks {others}."
        )
    task, documents = plan.tasks[name], plan.documents[name]
    docs = [task.docs()[d] for d in documents]
    nothing: list[str | None] = [None] * len(docs)
    table = Table.build({}, nothing, nothing, [task.cluster(d) for d in docs], [task.stratum(d) for d in docs])
    return raced_task(name, documents, table, task.metrics, task.primary)


@contextmanager
def live(plan: Plan, output: Path, open_engine: OpenEngine | None = None) -> Iterator[Contestant]:
    """Give a model as a contestant; its answers go into the folder of the run that `darumeru run` makes with these settings.

    Args:
        plan: of that run.
        output: the folder under which it lies.
        open_engine: what loads the model. [the plan's engine]

    Raises:
        UserError: another process computes the same run; a task cannot be raced.
    """
    from darumeru.evaluation.execute import hold, open_planned, run_of

    run, header = run_of(plan, output)
    if run.complete:
        yield Recorded.of(run, plan.suite.counted, raced_tasks(plan))
        return
    with hold(plan, run, header), ExitStack() as stack:
        journal = Journal(run.path / "journal.jsonl")
        yield Live(plan.model.name, plan, run, run.header, journal, open_engine or open_planned, stack)


def check_alike(contestants: Sequence[Contestant]) -> list[str]:
    """Return what a reader should know of differences between contestants.

    Raises:
        UserError: they were not asked the same.
    """
    first = contestants[0]
    remarks = []
    for other in contestants[1:]:
        both = f"'{first.name}' and '{other.name}'"
        if missing := set(first.tasks) ^ set(other.tasks):
            common = [t for t in first.tasks if t in other.tasks]
            hint = (
                f"Race those that both have: --tasks {','.join(common)}." if common else "They have no task in common."
            )
            raise UserError(f"{both} cannot race: only one of them has {', '.join(sorted(missing))}. {hint}")
        for task in first.tasks:
            if fault := _different(first, other, task):
                raise UserError(f"{both} cannot race: {task} {fault}.")
        for key in ("mode", "num_fewshot", "max_prompt_len", "how_thought", "how_drawn", "repeats"):
            x, y = getattr(first.header, key), getattr(other.header, key)
            if x != y:
                title = {"how_drawn": "how answers were drawn", "how_thought": "thinking"}.get(key, key)
                remarks.append(f"{title} differs: {x} ({first.name}), {y} ({other.name}).")
    if any(same_model(a, b) for i, a in enumerate(contestants) for b in contestants[:i]):
        raise UserError("The same model was named twice. A race needs two different ones.")
    return remarks


def _different(a: Contestant, b: Contestant, task: str) -> str | None:
    """Return in what a task differs for two contestants."""
    x, y = a.header.tasks[task], b.header.tasks[task]

    def source(facts: Any) -> Any:
        about = first_split(facts.data)[1]
        return about.get("sha256") or [about.get("source"), about.get("revision"), about.get("rows")]

    if source(x) != source(y):
        return "was read from different data"
    if x.wording != y.wording:
        return "was worded differently"
    if x.version != y.version:
        return f"has version {x.version} in one and {y.version} in the other; run the older one again"
    if a.tasks[task].units != b.tasks[task].units:
        return "has other documents in one than in the other (--limit and --seed choose them)"
    if a.tasks[task].metrics != b.tasks[task].metrics:
        return "is measured differently; 'darumeru rescore' computes the scores of the older run again"
    return None


def same_model(a: Contestant, b: Contestant) -> bool:
    """Return whether two contestants are one model that is asked in one way."""
    if a.header.id is not None and a.header.id == b.header.id:
        return True
    x, y = a.header, b.header
    return x.model.weights_sha256 is not None and (
        (x.model.weights_sha256, x.model.adapter_sha256, x.engine, x.mode, x.num_fewshot, x.how_drawn, x.thinking)
        == (y.model.weights_sha256, y.model.adapter_sha256, y.engine, y.mode, y.num_fewshot, y.how_drawn, y.thinking)
    )
