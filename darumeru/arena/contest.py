"""An arena: settings → players and prompts → answers → the judge's opinions → scores → record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.arena.judge import Opinion, Verdict, question, rubric_sha256
from darumeru.arena.player import Player, distinct_names
from darumeru.arena.prompts import Prompts, read_prompts
from darumeru.arena.record import FORMAT, KIND, Arena
from darumeru.arena.results import score
from darumeru.arena.settings import ArenaSettings
from darumeru.errors import UserError
from darumeru.files import fingerprint, read_json, slug, write_json
from darumeru.inference import Progress, ask, longest_input, requests_sha256
from darumeru.inference.prompt import FOUNDATION_TURN
from darumeru.options import validated
from darumeru.record.run import Journal, exclusive
from darumeru.requests import Answer, Query, Request
from darumeru.settings import settings_of

if TYPE_CHECKING:
    from darumeru.engines import Engine


@dataclass(frozen=True)
class Plan:
    """An arena in which everything is decided and nothing is computed yet."""

    settings: ArenaSettings
    players: tuple[Player, ...]
    judge: Player
    prompts: Prompts
    requests: dict[str, list[Request]]
    """For each model what it is asked, in the prompts' order."""

    @property
    def names(self) -> list[str]:
        """The models."""
        return [p.name for p in self.players]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of models."""
        return list(combinations(self.names, 2))

    def header(self) -> dict[str, Any]:
        """Return what the record states; equal for equal arenas."""
        settings = self.settings
        return {
            "format": FORMAT,
            "kind": KIND,
            "models": [
                {"name": p.name} | p.facts() | {"requests_sha256": requests_sha256(self.requests[p.name])}
                for p in self.players
            ],
            "judge": {"name": self.judge.name} | self.judge.facts(),
            "lang": settings.lang,
            "rubric_sha256": rubric_sha256(settings.lang),
            "prompts": {
                "count": len(self.prompts.chosen),
                "of": self.prompts.of,
                "repeated": self.prompts.repeated,
                "sha256": fingerprint([p.to_json() for p in self.prompts.chosen]),
            },
            "limit": settings.limit,
            "seed": settings.seed,
            "max_tokens": settings.max_tokens,
            "generation": {"do_sample": False, "temperature": 0.0},
        }


OpenEngine = Callable[[Player, int], "Engine"]
"""(player, longest input with its answer in tokens) → the loaded model."""

Stage = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress display for a part of the work, by its title."""


def arena(
    models: Sequence[str | Path],
    prompts: str | Path,
    judge: str | Path,
    *,
    output: str | Path = "arenas",
    stage: Stage | None = None,
    **settings: Any,
) -> Arena:
    """Let models answer prompts and a judge compare the answers; one that was begun resumes, a finished one is returned.

    Args:
        models: two or more model folders or hub ids.
        prompts: a file, see `read_prompts`.
        judge: the model that judges; any model, in any engine.
        output: the folder under which the arena gets a folder of its own.
        stage: opens a progress display for each part of the work.
        settings: see `ArenaSettings` (`limit`, `lang`, `max_tokens`, `engine`, `judge_engine`, …).

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was computed is kept.
    """
    names = tuple(map(str, models))
    asked = validated(ArenaSettings, {"models": names, "prompts": Path(prompts), "judge": str(judge), **settings})
    return execute(prepare(asked), Path(output), stage)


def prepare(settings: ArenaSettings) -> Plan:
    """Find models, judge and prompts; what can be wrong with them is found here, before a model is loaded.

    Raises:
        UserError: the settings ask for what there is not.
        DarumeruError: the hub cannot be asked, a tokenizer cannot be loaded.
    """
    if len(settings.models) < 2:
        raise UserError(f"An arena needs at least two models, and --models names {len(settings.models)}: --models A B.")
    prompts = read_prompts(settings.prompts, settings.limit, settings.seed)
    players = tuple(_players(settings))
    judge = _judge(settings)
    seen: dict[str, str] = {}
    for player in players:
        if (twin := seen.setdefault(fingerprint(player.facts()), player.name)) != player.name:
            raise UserError(
                f"'{twin}' and '{player.name}' are the same model: equal weights and tokenizer. An arena compares different ones."
            )
    queries = [
        Query("generate", list(p.messages), max_tokens=settings.max_tokens, until=(FOUNDATION_TURN,))
        for p in prompts.chosen
    ]
    requests = {
        player.name: player.opened.prompter().requests((f"prompt/{n}", query, ()) for n, query in enumerate(queries))
        for player in players
    }
    return Plan(settings, players, judge, prompts, requests)


def _players(settings: ArenaSettings) -> Iterator[Player]:
    names = distinct_names(settings.models)
    urls: Sequence[str | None] = _each(settings.base_url, settings.models, "--base-url", shared=True)
    served = _each(settings.served_model, settings.models, "--served-model", shared=False)
    revisions = _each(settings.revision, settings.models, "--revision", shared=True)
    each = zip(names, settings.models, urls, served, revisions, strict=True)
    for name, model, base_url, served_model, revision in each:
        yield Player.of(
            name,
            settings_of(
                model=model, revision=revision, engine=settings.engine, dtype=settings.dtype, model_args=settings.model_args,
                device=settings.device, max_prompt_len=settings.max_prompt_len, seed=settings.seed,
                trust_remote_code=settings.trust_remote_code, exact=settings.exact, base_url=base_url,
                served_model=served_model, api_key_env=settings.api_key_env, approximate=settings.approximate,
                thinking=settings.thinking, thinking_budget=settings.thinking_budget, think_end=settings.think_end,
                chat_template_args=settings.chat_template_args,
            ),
        )  # fmt: skip


def _each(values: Sequence[str], models: Sequence[str], option: str, shared: bool) -> list[str | None]:
    """A value for each model."""
    if not values:
        return [None] * len(models)
    if shared and len(values) == 1:
        return [values[0]] * len(models)
    if len(values) != len(models):
        raise UserError(
            f"{option} is given {len(values)} times for {len(models)} models: give it once for each, in their order"
            f"{', or once for all' if shared else ''}."
        )
    return list(values)


def _judge(settings: ArenaSettings) -> Player:
    from darumeru.engines import engine_class

    name = distinct_names([settings.judge])[0]
    try:
        # Where a server has the judge, the device is the models' alone.
        local = {} if engine_class(settings.judge_engine).needs_server else {"device": settings.device}
        return Player.of(
            name,
            settings_of(
                model=settings.judge, revision=settings.judge_revision, engine=settings.judge_engine, dtype=settings.judge_dtype,
                model_args=settings.judge_model_args, max_prompt_len=settings.judge_max_prompt_len, seed=settings.seed,
                trust_remote_code=settings.trust_remote_code, exact=settings.exact, base_url=settings.judge_base_url,
                served_model=settings.judge_served_model, api_key_env=settings.judge_api_key_env,
                approximate=settings.judge_approximate, thinking=settings.judge_thinking,
                thinking_budget=settings.judge_thinking_budget, think_end=settings.judge_think_end,
                chat_template_args=settings.judge_chat_template_args, **local,
            ),
        )  # fmt: skip
    except UserError as error:
        raise UserError(
            f"Judge '{name}': {error} (The judge's options are --judge-engine, --judge-base-url, ….)"
        ) from None


# -- computing --------------------------------------------------------------------------------------------------------


def _open(player: Player, max_len: int) -> Engine:
    return player.opened.load(max_len)


def execute(
    plan: Plan, output: Path = Path("arenas"), stage: Stage | None = None, open_engine: OpenEngine = _open
) -> Arena:
    """Compute an arena, or what is missing of it, and write the record.

    Requests that an engine could not answer are counted as not judged, and `scores["failed"]` names them; the record is not
    complete then, and the same call asks them again.

    Raises:
        UserError: another process computes the same arena or the same answers.
        DarumeruError: an engine failed; what was computed is kept.
    """
    header = plan.header()
    identity = fingerprint(header)
    done = Arena(output / f"{slug('-vs-'.join(slug(n) for n in plan.names))}-{identity[:10]}")
    if done.complete:
        done.verify()
        return done
    done.path.mkdir(parents=True, exist_ok=True)
    with exclusive(done.path):
        if not (done.path / "header.json").is_file():
            write_json(done.path / "header.json", header | {"id": identity, "started": _now(), "where": _where(plan)})
        faults: dict[str, str] = {}
        answers: dict[str, dict[int, tuple[Request, Answer]]] = {}
        for player in plan.players:
            requests = plan.requests[player.name]
            folder = _answers_folder(output, player, requests)
            with exclusive(folder):
                found, failed = _ask(player, requests, folder, f"{player.name} answers", stage, open_engine)
            faults |= {f"{player.name}, {id_}": fault for id_, fault in failed.items()}
            answers[player.name] = {n: (r, found[r.id]) for n, r in enumerate(requests) if r.id in found}
        verdicts, failed = _verdicts(plan, answers, done.path, stage, open_engine)
        faults |= {f"{plan.judge.name} as judge, {id_}": fault for id_, fault in failed.items()}
        scores = score(plan.names, len(plan.prompts.chosen), answers, verdicts, plan.settings.seed)
        if any(p.facts()["model"] == plan.judge.facts()["model"] for p in plan.players):
            scores["remarks"].append("The judge is one of the models: it may prefer its own answers.")
        scores |= {"failed": faults, "finished": _now()}
        from darumeru.arena.views import write_views

        done.write(plan.prompts.chosen, answers, verdicts, scores)
        write_views(done)
        if not faults:
            done.finish()
    return done


def _answers_folder(output: Path, player: Player, requests: Sequence[Request]) -> Path:
    """Return where a model's answers are computed: the same for all arenas that ask it the same."""
    header = {"format": FORMAT, "kind": "answers", "requests_sha256": requests_sha256(requests)} | player.facts()
    identity = fingerprint(header)
    folder = output / "answers" / f"{slug(player.opened.model.name)}-{identity[:10]}"
    if not (folder / "header.json").is_file():
        write_json(folder / "header.json", header | {"id": identity, "started": _now()})
    return folder


def _ask(
    player: Player,
    requests: Sequence[Request],
    folder: Path,
    title: str,
    stage: Stage | None,
    open_engine: OpenEngine,
) -> tuple[dict[str, Answer], dict[str, str]]:
    """A player's answers by request, out of the folder's journal or its engine, and why some are missing.

    The folder's header gets to know what the engine says of itself.
    """
    journal = Journal(folder / "journal.jsonl")
    faults: dict[str, str] = {}
    if any(r.id not in journal.answers for r in requests):
        with (
            stage(title) if stage else nullcontext() as progress,
            open_engine(player, longest_input(requests)) as engine,
        ):
            header = folder / "header.json"
            write_json(header, read_json(header) | {"environment": engine.describe()})
            faults, _ = ask(engine, requests, journal, progress)
    return {r.id: journal.answers[r.id] for r in requests if r.id in journal.answers}, faults


def _verdicts(
    plan: Plan,
    answers: Mapping[str, Mapping[int, tuple[Request, Answer]]],
    folder: Path,
    stage: Stage | None,
    open_engine: OpenEngine,
) -> tuple[list[Verdict], dict[str, str]]:
    """All pairs on all prompts, judged in both orders."""
    judge = plan.judge
    special, prompter = judge.special_texts, judge.opened.prompter()
    settled: dict[tuple[int, str, str], Verdict] = {}
    queries: list[tuple[str, Query, tuple[()]]] = []
    open_pairs: list[tuple[int, str, str]] = []
    for n, prompt in enumerate(plan.prompts.chosen):
        for a, b in plan.pairs:
            missing = [name for name in (a, b) if n not in answers[name]]
            if missing:
                why = f"no answer of {' and '.join(missing)}"
                settled[n, a, b] = Verdict(n, a, b, "unjudged", None, why=why)
                continue
            one, other = (answers[name][n][1].text for name in (a, b))
            if one.strip() == other.strip():
                settled[n, a, b] = Verdict(n, a, b, "same answer", "tie")
                continue
            open_pairs.append((n, a, b))
            for first, second in ((one, other), (other, one)):
                query = question(prompt, first, second, plan.settings.lang, special)
                queries.append((_id(n, first, second), query, ()))
    requests = prompter.requests(queries)
    both = list(zip(open_pairs, requests[::2], requests[1::2], strict=True))
    fitting = [(r1, r2) for _, r1, r2 in both if not (r1.truncated or r2.truncated)]
    # Where two models gave one answer, a third is held against it once.
    asked = list({r.id: r for pair in fitting for r in pair}.values())
    found, faults = _ask(judge, asked, folder, f"{judge.name} judges", stage, open_engine)
    for (n, a, b), r1, r2 in both:
        if cut := max(r1.truncated, r2.truncated):
            why = f"too long for the judge: {cut + len((r1 if r1.truncated == cut else r2).prompt)} tokens"
            settled[n, a, b] = Verdict(n, a, b, "unjudged", None, why=why)
        elif any(r.id in found and found[r.id].unfinished for r in (r1, r2)):
            settled[n, a, b] = Verdict(n, a, b, "unjudged", None, why="the judge's thought did not end")
        elif r1.id in found and r2.id in found:
            a_first, b_first = (Opinion.of(found[r.id].logprobs) for r in (r1, r2))
            settled[n, a, b] = Verdict.of(n, a, b, a_first, b_first)
        else:
            why = next(faults[r.id] for r in (r1, r2) if r.id in faults)
            settled[n, a, b] = Verdict(n, a, b, "unjudged", None, why=f"the judge failed: {why}")
    return [settled[n, a, b] for n in range(len(plan.prompts.chosen)) for a, b in plan.pairs], faults


def _id(number: int, first: str, second: str) -> str:
    """Names a request by what the judge sees: an opinion in the journal never belongs to another answer."""
    return f"verdict/{number}/{fingerprint([first, second])[:16]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _where(plan: Plan) -> dict[str, Any]:
    """The surroundings, which do not decide the results."""
    packages = ("darumeru", "transformers", "torch", "tokenizers", "numpy")
    return {
        "prompts": str(plan.settings.prompts),
        "models": list(plan.settings.models),
        "judge": plan.settings.judge,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {p: version(p) for p in packages},
    }
