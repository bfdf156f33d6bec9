"""`darumeru watch`: evaluates each checkpoint of a training, in a process of its own, while the training runs or afterwards.

What is done is told by the run records alone: a complete record of the checkpoint's weights means evaluated, an interrupted one
resumes from its journal. So either side can be killed and started again, and each checkpoint is evaluated exactly once.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from darumeru.doctor.gpus import nvidia_gpus
from darumeru.errors import UserError
from darumeru.evaluation import Settings, Training, settings_of, validated
from darumeru.evaluation.several import MOST_PLANS, opened_by
from darumeru.files import read_json, write_json
from darumeru.record.run import Run
from darumeru.settings import STALL, WorkerSettings
from darumeru.watch.checkpoints import SETTLE, Checkpoint, check_folder, find_checkpoints, keep, tokenizer_of
from darumeru.watch.curve import MICRO_AVG, Point, best, metrics_for
from darumeru.watch.diagnosis import Diagnosis
from darumeru.watch.evaluated import evaluated
from darumeru.watch.process import device_of, evaluate_apart, taken_gpu
from darumeru.watch.records import Records
from darumeru.watch.rules import Fired
from darumeru.watch.status import Outcome, Report, Status, told
from darumeru.watch.verdict import STOP, Judge, Verdict, check_race, make_judge, note, write_best
from darumeru.workers import Pool, open_pool

__all__ = ["Outcome", "Report", "Status", "watch"]

ATTEMPTS = 3
"""Number of times a checkpoint is tried before it counts as failed."""


def watch(
    folder: str | Path,
    *,
    output: str | Path = "runs",
    name: str | None = None,
    rules: Sequence[str] = (),
    keep_best: str | None = None,
    race_against: str | None = None,
    once: bool = False,
    poll: float = 10.0,
    stall: float = STALL,
    newest_first: bool = False,
    until_step: int | None = None,
    device: str = "auto",
    settle: float = SETTLE,
    workers: int | Literal["auto"] = 1,
    ray: str | None = None,
    devices_per_worker: int = 1,
    report: Report = lambda status: None,
    **settings: Any,
) -> Outcome:
    """Evaluate the checkpoints `checkpoint-N` of a folder as they come.

    It returns when a rule fires; with `once` when all that is there is evaluated; else when the training is over and nothing is
    left: its last step (`max_steps`) or `until_step` is evaluated, or it has written `lep.json` (in the folder or the one above),
    or a last checkpoint after a `STOP` file.

    Args:
        folder: the training's output folder.
        output: folder of the run records; `rules.jsonl` comes there too.
        name: the training's name in records. [the folder's name]
        rules: when to stop, see `darumeru.watch.rules`; a file `STOP` in `folder` then asks the training to end.
        keep_best: a metric; the best checkpoint is kept as `folder`/best, and `best.json` names it.
        race_against: `best`: a checkpoint is asked only until it is clear that its mean is below that of the best so far.
        once: evaluate what is there and return.
        poll: seconds between two looks.
        stall: seconds without progress after which an evaluation is ended and counts as failed.
        newest_first: catch up on old checkpoints from the newest on.
        until_step: the last step, where the training itself does not know.
        device: `auto`, `cpu`, `cuda`, or `cuda:N`, the GPU that the evaluations get for their own.
        settle: seconds for which a checkpoint must not have changed.
        workers, ray, devices_per_worker: see `WorkerSettings`; workers evaluate several checkpoints side by side.
        report: is told how far it has come.
        settings: of the runs, see `darumeru.evaluation.Settings` (`suite`, `data`, `engine`, `limit`, …).

    Raises:
        UserError: what was asked for cannot be done so.
    """
    root = Path(folder)
    check_folder(root, once)
    if poll <= 0 or settle < 0:
        raise UserError(f"--poll {poll} is not possible: give seconds above 0.")
    given = {"workers": workers, "ray": ray, "devices_per_worker": devices_per_worker, "stall": stall}
    where = validated(WorkerSettings, given)
    chosen, environment = device_of(device)
    if where.apart and device.startswith("cuda:"):
        raise UserError(
            f"--device '{device}' is one GPU, and workers take as many as they are: leave out one of the two."
        )
    for key in ("model", "training", "adapter", "base_url"):
        if settings.get(key) is not None:
            raise UserError(f"'{key}' is no setting of a watch: it evaluates the checkpoints of '{folder}'.")
    wanted = settings_of(model=str(root), device=chosen, **{"suite": "darumeru-train"} | settings)
    _check_settings(wanted)
    judge = make_judge(metrics_for(wanted), rules, keep_best)
    check_race(race_against, wanted, judge)
    training = name or root.resolve().name
    with open_pool(where, gpus=chosen != "cpu") if where.apart else nullcontext() as pool:
        state = _Watch(
            root, Path(output), training, wanted, environment, judge, report, newest_first, poll, stall, settle,
            pause=min(poll, 1.0) if once else poll, races=race_against is not None, pool=pool,
        )  # fmt: skip
        if not pool and (taken := taken_gpu(chosen, environment, nvidia_gpus())):
            state.tell(taken)
        return state.follow(once, until_step)


def _check_settings(settings: Settings) -> None:
    """Find now what would fail for each checkpoint.

    Raises:
        UserError: no such engine, bundle or tokenizer, or an engine that needs no weights.
    """
    from darumeru.data.bundle import open_bundle
    from darumeru.engines import engine_class
    from darumeru.inference.model import has_tokenizer

    engine = engine_class(settings.engine, settings.device)
    if engine.needs_server:
        raise UserError(f"--engine {engine.name} asks a server, but a checkpoint is a folder: use --engine hf or vllm.")
    open_bundle(settings.data, settings.lock)
    if settings.tokenizer is not None and not has_tokenizer(settings.tokenizer):
        raise UserError(f"--tokenizer '{settings.tokenizer}' holds no tokenizer.")


@dataclass
class _Watch:
    """The state of a watch; whatever must outlive it is in the run records."""

    folder: Path
    output: Path
    name: str
    settings: Settings
    environment: Mapping[str, str]
    judge: Judge
    report: Report
    newest_first: bool
    poll: float
    stall: float
    settle: float
    pause: float
    """Seconds before a failed checkpoint is tried again."""
    races: bool = False
    """Whether a checkpoint that is worse than the best is not evaluated to the end."""
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)
    attempts: dict[tuple[int, Any], int] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    later: dict[int, float] = field(default_factory=dict)
    """Step → when it may be tried again."""
    deleted: set[int] = field(default_factory=set)
    pool: Pool | None = None
    """The workers that answer; without, each checkpoint has a process of its own, one at a time."""
    running: dict[int, str] = field(default_factory=dict)
    """Step → how far its evaluation is."""
    ended: queue.SimpleQueue[tuple[Checkpoint, dict[str, Any], float]] = field(default_factory=queue.SimpleQueue)
    """What came of evaluations, and their seconds."""
    diagnosed: str | None = None
    kept: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self.records = Records(self.output, self.name, self.settings, self.races)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def follow(self, once: bool, until_step: int | None) -> Outcome:
        """See `watch`."""
        while True:
            self._look()
            while not self.ended.empty():
                self._took(*self.ended.get())
            points = self.records.points(self.checkpoints)
            # Without a checkpoint they are of an earlier training, and say nothing to the one that is about to begin.
            verdict = self._judge(points if self.checkpoints else [])
            pending = self._pending()
            if verdict.fired or (not (pending or self.running) and (once or self._over(until_step))):
                return self._outcome(points, verdict)
            now = time.monotonic()
            ready = [c for c in pending if c.step not in self.running and self.later.get(c.step, 0.0) <= now]
            whole = [c for c in ready if c.state == "whole"]
            for broken in (c for c in ready if c.state == "broken"):
                self._failed(broken, broken.reason)
            if self.pool:
                self.pool.expect(min(len(self.running) + len(whole), self._most()))
            if whole and len(self.running) < self._most():
                self._evaluate(self._next(whole))
                continue
            self.tell()
            time.sleep(min(self.poll, 0.5) if once or pending else self.poll)

    def _most(self) -> int:
        """Return how many checkpoints are evaluated at once: with workers one more than those, whose prompts are being built."""
        return min(self.pool.size + 1, MOST_PLANS) if self.pool else 1

    def _next(self, whole: Sequence[Checkpoint]) -> Checkpoint:
        """Return which checkpoint comes next. Of several at once one goes from the oldest on, so that none waits for ever."""
        unserved = bool(self.running) and min(self.running) > whole[0].step
        return whole[-1] if self.newest_first and not unserved else whole[0]

    def _look(self) -> None:
        before = self.checkpoints
        self.checkpoints = find_checkpoints(self.folder, self.settings.trust_remote_code, self.settle)
        self.records.look()
        for step in before.keys() - self.checkpoints.keys():
            if before[step].state != "unfinished" and step not in self.running and not self._done(before[step]):
                self.deleted.add(step)
                self.tell(
                    f"checkpoint-{step} was deleted before it was evaluated: raise the Trainer's save_total_limit."
                )
        self.deleted -= self.checkpoints.keys()

    def _done(self, checkpoint: Checkpoint) -> bool:
        return self.records.of(checkpoint) is not None

    def _tries(self, checkpoint: Checkpoint) -> int:
        return self.attempts.get((checkpoint.step, checkpoint.signature), 0)

    def _pending(self) -> list[Checkpoint]:
        """Return the checkpoints still to be evaluated, oldest first; a settling one counts, a half-written one does not."""
        return [
            c
            for c in self.checkpoints.values()
            if not self._done(c) and self._tries(c) < ATTEMPTS and c.state != "unfinished"
        ]

    def _over(self, until_step: int | None) -> bool:
        """Return whether the training has ended; asked when nothing is pending."""
        if not self.checkpoints:
            return False
        newest = self.checkpoints[max(self.checkpoints)]
        if newest.state == "unfinished":
            return False
        if newest.step >= min(until_step or sys.maxsize, newest.max_steps or sys.maxsize):
            return True
        saved = max((changed for *_, changed in newest.signature), default=0)
        marks = [self.folder / "lep.json", self.folder.resolve().parent / "lep.json"]
        if any(m.is_file() and m.stat().st_mtime_ns >= saved for m in marks):
            return True
        stop = self.folder / STOP
        return stop.is_file() and stop.stat().st_mtime_ns <= saved

    # -- one checkpoint -----------------------------------------------------------------------------------------------

    def _evaluate(self, checkpoint: Checkpoint) -> None:
        """Evaluate a checkpoint: with workers in a thread of its own, beside others."""
        self.running[checkpoint.step] = "starts"
        self.tell(f"Evaluating checkpoint-{checkpoint.step}")
        if self.pool:
            threading.Thread(target=self._answer, args=(checkpoint,), daemon=True).start()
        else:
            self._answer(checkpoint)

    def _answer(self, checkpoint: Checkpoint) -> None:
        began = time.monotonic()
        try:
            message = self._run(checkpoint)
        except Exception as error:
            if not (self.pool or isinstance(error, UserError)):
                raise
            message = {"error": str(error)}
        self.ended.put((checkpoint, message, time.monotonic() - began))

    def _took(self, checkpoint: Checkpoint, message: dict[str, Any], seconds: float) -> None:
        """Take in what came of an evaluation."""
        step = checkpoint.step
        del self.running[step]
        if "run" in message:
            run = Run(Path(message["run"]))
            self.records.finish(checkpoint, run)
            self.reasons.pop(step, None)
            self.tell(told(run, step, seconds))
        elif not checkpoint.path.is_dir():
            self.deleted.add(step)
            self.tell(f"checkpoint-{step} was deleted while it was evaluated: raise the Trainer's save_total_limit.")
        elif message.get("busy"):
            self.later[step] = time.monotonic() + self.poll
            self.reasons[step] = "another process evaluates it"
        else:
            self._failed(checkpoint, str(message["error"]))

    def _failed(self, checkpoint: Checkpoint, reason: str) -> None:
        key = (checkpoint.step, checkpoint.signature)
        self.attempts[key] = tries = self._tries(checkpoint) + 1
        self.later[checkpoint.step] = time.monotonic() + self.pause * tries
        self.reasons[checkpoint.step] = reason
        end = "it is left out" if tries >= ATTEMPTS else "it will be tried again"
        self.tell(f"checkpoint-{checkpoint.step} failed ({tries} of {ATTEMPTS}; {end}): {reason}")

    def _asked_of(self, checkpoint: Checkpoint) -> Settings:
        training = Training(run=self.name, step=checkpoint.step, tokens_seen=checkpoint.tokens_seen)
        tokenizer = self.settings.tokenizer or tokenizer_of(checkpoint.path)
        return self.settings.model_copy(
            update={"model": str(checkpoint.path), "training": training, "tokenizer": tokenizer}
        )

    def _run(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Have workers, or a process of its own, evaluate a checkpoint; what came of it."""
        step, asked_of, against = checkpoint.step, self._asked_of(checkpoint), self._best() if self.races else None
        if self.pool:
            progress = partial(self._answered, step)
            return evaluated(asked_of, self.output, against, progress, opened_by(self.pool), self.pool.planning)
        return evaluate_apart(
            asked_of, self.output, self.environment, lambda *how: self._progress(step, *how), self.stall, against
        )

    def _best(self) -> str | None:
        """Return the folder of the best run so far that was evaluated to the end."""
        whole = [p for p in self.records.points(self.checkpoints) if p.run is not None and Run(Path(p.run)).complete]
        top = best(whole, MICRO_AVG, self.judge.metrics)
        return top.run if top else None

    def _answered(self, step: int, done: int, total: int) -> None:
        self.running[step] = f"{done / max(total, 1):.0%}"  # the loop tells it: this is not its thread

    def _progress(self, step: int, share: float, silent: float) -> None:
        quiet = f", nothing new for {silent / 60:.0f} min" if silent >= 60 else ""
        self.running[step] = f"{share:.0%}{quiet}"
        self.tell()

    # -- what follows -------------------------------------------------------------------------------------------------

    def _judge(self, points: list[Point]) -> Verdict:
        log = next((c.log for c in reversed(self.checkpoints.values()) if c.log), ())
        verdict = self.judge.verdict(points, log)
        if verdict.best is not None:
            self._keep(verdict.best)
        if verdict.diagnosis and verdict.diagnosis.kind != self.diagnosed:
            self._say(verdict.diagnosis, points[-1].step)
            self.tell(f"Step {points[-1].step}: {verdict.diagnosis.text}")
        self.diagnosed = verdict.diagnosis.kind if verdict.diagnosis else None
        for fired in verdict.fired:
            self.tell(f"Rule fired: {fired}")
            if self._stop(fired):
                self._say(fired, fired.step)
        return verdict

    def _say(self, said: Fired | Diagnosis, step: int) -> None:
        note(self.output, self.name, self.settings.suite, said, step)

    def _stop(self, fired: Fired) -> bool:
        """Ask the training to end; False if it has been asked for this reason before."""
        file = self.folder / STOP
        with suppress(UserError, AttributeError):
            if read_json(file).get("reason") == str(fired):
                return False
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(file, {"reason": str(fired), "step": fired.step, "at": at})
        return True

    def _keep(self, top: Point) -> None:
        metric = str(self.judge.keep_best)
        mark = (top.step, top.values[metric])
        if self.kept is None:
            with suppress(UserError, KeyError, TypeError):
                known = read_json(self.folder / "best.json")
                if known["metric"] == metric and (known["checkpoint"] is None or (self.folder / "best").is_dir()):
                    self.kept = (int(known["step"]), float(known["value"]))
        if self.kept == mark:
            return
        self.kept = mark
        checkpoint = self.checkpoints.get(top.step)
        try:
            if checkpoint is None:
                raise FileNotFoundError("it was deleted; raise the Trainer's save_total_limit")
            keep(checkpoint.path, self.folder)
            write_best(self.folder, metric, top, "best")
            self.tell(f"checkpoint-{top.step} is the best so far ({metric} {mark[1]:.3f}): {self.folder / 'best'}")
        except OSError as error:
            self.tell(f"checkpoint-{top.step} is the best so far, but it cannot be kept: {error}.")
            with suppress(OSError):
                write_best(self.folder, metric, top, None)

    def _remarks(self) -> dict[int, str]:
        remarks = dict.fromkeys(self.deleted, "deleted before it was evaluated")
        for step, checkpoint in self.checkpoints.items():
            if self._done(checkpoint):
                continue
            if checkpoint.state in ("unfinished", "settling"):
                remarks[step] = f"not whole: {checkpoint.reason}"
            elif self._tries(checkpoint) >= ATTEMPTS:
                remarks[step] = f"failed: {self.reasons[step]}"
            elif step in self.reasons:
                remarks[step] = f"waits: {self.reasons[step]}"
            else:
                remarks[step] = "waits"
        return remarks | {step: f"is evaluated: {how}" for step, how in list(self.running.items())}

    def tell(self, event: str | None = None) -> None:
        """Report the state, and what has happened."""
        self.report(Status(self.judge.metrics, self.records.points(self.checkpoints), self._remarks(), event))

    def _outcome(self, points: list[Point], verdict: Verdict) -> Outcome:
        self.tell()
        states = self.checkpoints.values()
        return Outcome(
            self.judge.metrics,
            tuple(points),
            {c.step: self.reasons[c.step] for c in states if not self._done(c) and self._tries(c) >= ATTEMPTS},
            tuple(sorted(self.deleted)),
            {c.step: c.reason for c in states if c.state == "unfinished" and not self._done(c)},
            verdict.fired,
            verdict.best,
        )
