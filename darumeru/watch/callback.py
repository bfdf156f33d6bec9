"""A callback for transformers' `Trainer` and all that are made of it: evaluation in memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from darumeru.errors import DarumeruError, UserError, unknown
from darumeru.evaluation import Plan, Training, execute, prepare, settings_of
from darumeru.race.challenge import challenge, lost
from darumeru.record.run import Run
from darumeru.watch.curve import MICRO_AVG, Point, best, logged, metrics_for, point_of
from darumeru.watch.diagnosis import Diagnosis
from darumeru.watch.memory import (
    LoadedModel,
    MemoryEngine,
    loaded_model,
    refuse_sharded,
    same_random,
    untouched,
    unwrapped,
    weights_sha256,
)  # fmt: skip
from darumeru.watch.ranks import Ranks
from darumeru.watch.rules import Fired
from darumeru.watch.verdict import Verdict, check_race, make_judge, note, write_best

log = logging.getLogger(__name__)

PREFIX = "eval_darumeru/"
"""Of our metrics in the Trainer's log."""


class DarumeruCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates the model in memory every N optimizer steps and at the end; writes ordinary run records.

    Training continues as if nothing had happened: see `darumeru.watch.memory.untouched`. Under DDP the first process
    evaluates and the others wait. An evaluation that fails is logged and counted (`failures`), and training continues.

    Metrics go to `state.log_history` as `eval_darumeru/micro_avg`, `eval_darumeru/<group>`, `eval_darumeru/<task>`; with `attach`
    also to the Trainer's integrations (TensorBoard, W&B, …), which a callback alone does not reach.

    Args:
        suite: the suite; see `darumeru list suites`.
        every: optimizer steps between two evaluations.
        data: the bundle: `hub`, `mini`, or the folder of an offline bundle.
        runs: folder of the run records.
        tokenizer: the model's, where the Trainer has none as `processing_class`.
        rules: when to stop, see `darumeru.watch.rules`.
        keep_best: a metric; the Trainer saves a checkpoint whenever it is best, and `best.json` names it.
        patience: stop after that many evaluations without improvement of `keep_best` (`micro_avg` without it).
        race_against: `best`: the model is asked only until it is clear that its mean is below that of the best so far.
        name: the training's name in records. [`run_name`, or the last part of `output_dir`]
        limit: a seeded random sample of that many documents a task.
        at_start: evaluate before the first step too.
        settings: further settings of a run (`tasks`, `mode`, `num_fewshot`, `max_prompt_len`, `seed`, …).

    Raises:
        UserError: a setting, rule or metric is not understood; when the training begins also if the data cannot be had, there is
            no tokenizer, or the weights are spread over processes (FSDP, ZeRO-3: use `darumeru watch`).
    """

    def __init__(
        self,
        suite: str = "darumeru-train",
        *,
        every: int,
        data: str = "mini",
        runs: Path | str = Path("runs"),
        tokenizer: Any = None,
        rules: Sequence[str] = (),
        keep_best: str | None = None,
        patience: int | None = None,
        race_against: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        at_start: bool = True,
        **settings: Any,
    ) -> None:
        if every < 1:
            raise UserError(f"every={every} is not possible: give the optimizer steps between two evaluations.")
        for key in ("model", "engine", "training", "tokenizer", "device", "dtype", "adapter"):
            if key in settings:
                raise UserError(f"'{key}' is no setting of an evaluation in memory: the training has decided it.")
        for key in settings.get("model_args") or {}:
            if key not in MemoryEngine.known_args():
                raise unknown("key of model_args for an evaluation in memory", key, MemoryEngine.known_args())
        with same_random():
            self._settings = settings_of(
                model="in memory", suite=suite, engine=MemoryEngine.name, data=data, limit=limit, **settings
            )
            self._judge = make_judge(metrics_for(self._settings), rules, keep_best, patience)
            check_race(race_against, self._settings, self._judge)
        self.race_against = race_against
        self.every = every
        self.runs = Path(runs)
        self.tokenizer = tokenizer
        self.name = name
        self.at_start = at_start
        self.failures: list[str] = []
        """Errors, an entry for each evaluation that failed."""
        self._trainer: Any = None
        self._ranks = Ranks()
        self._plan: Plan | None = None
        self._last: int | None = None
        self._best: Point | None = None
        self._seen: dict[int, Point] = {}
        self._fired: set[tuple[str, int]] = set()
        self._diagnosed: str | None = None

    def attach(self, trainer: Any) -> DarumeruCallback:
        """Add this callback to a Trainer, and send its metrics where the Trainer sends its own."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    # -- events -------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find everything that is wrong before the first step."""
        self._last, self._best, self._seen, self._fired, self._diagnosed = None, None, {}, set(), None
        model = unwrapped(kwargs["model"])
        _refuse_settings(args)
        refuse_sharded(model)
        self._ranks.open()
        fault: Exception | None = None
        if state.is_world_process_zero:
            try:
                self._prepare(args, model, self.tokenizer or kwargs.get("processing_class"))
            except Exception as error:
                fault = error
        if self._ranks.agree(fault is not None)[0]:
            raise fault or DarumeruError("The evaluation could not begin; the first process says why.")
        step = state.global_step
        # A process that was killed may not have come to the evaluation of the checkpoint from which this one resumes.
        due = self.at_start if step == 0 else step % self.every == 0
        if due and step not in {p.step for p in self._curve(state)}:
            self._round(args, state, control, model)
            if step and (Path(args.output_dir) / f"checkpoint-{step}").is_dir():
                self.on_save(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate if it is time."""
        step = state.global_step
        if step % self.every == 0 or step >= state.max_steps or control.should_training_stop:
            self._round(args, state, control, kwargs["model"])

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the loss. All processes see the same entries, so they decide alike."""
        if any(key.startswith(PREFIX) for key in kwargs.get("logs") or {}):
            return
        verdict = self._judge.verdict([], logged(state.log_history))
        if verdict.fired:
            self._say(state, replace(verdict, diagnosis=None))
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Name the best checkpoint once it is there."""
        top = self._best
        if top is not None and top.step == state.global_step and state.is_world_process_zero:
            self._write_best(args, top, f"checkpoint-{top.step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate the last step if it was not, unless the Trainer has put the best model in its place."""
        if self._last != state.global_step and not args.load_best_model_at_end:
            self._round(args, state, control, kwargs["model"])
        self._ranks.close()

    # -- one evaluation -----------------------------------------------------------------------------------------------

    def _prepare(self, args: Any, model: Any, tokenizer: Any) -> None:
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor has one
        if tokenizer is None:
            raise UserError(
                "The evaluation needs the model's tokenizer: give it to the Trainer as processing_class, or to "
                "DarumeruCallback as tokenizer."
            )
        self.name = self.name or args.run_name or Path(args.output_dir).resolve().name
        training = Training(run=self.name, step=0)
        with untouched(model):
            settings = self._settings.model_copy(update={"model": self.name, "training": training})
            self._plan = prepare(settings, loaded_model(self.name, model, tokenizer), tokenizer)

    def _round(self, args: Any, state: Any, control: Any, model: Any) -> None:
        """Evaluate, log, and judge; all processes come out of it with the same decisions."""
        if self._last == state.global_step:
            return
        self._last = state.global_step
        stop = save = False
        if state.is_world_process_zero:
            try:
                stop, save = self._evaluate(args, state, control, unwrapped(model))
            except Exception as error:  # whatever it is, the training is worth more
                self.failures.append(f"step {state.global_step}: {type(error).__name__}: {error}")
                log.error(
                    "Evaluation at step %d failed (%d so far), training continues. %s: %s",
                    state.global_step, len(self.failures), type(error).__name__, error,
                    exc_info=not isinstance(error, DarumeruError),
                )  # fmt: skip
        stop, save = self._ranks.agree(stop, save)
        if save and args.metric_for_best_model is None:
            # The Trainer keeps its best checkpoint when it deletes old ones; it has no metric of its own here.
            state.best_global_step = state.global_step
        if stop:
            control.should_training_stop = True
            save |= args.save_strategy != "no"
        control.should_save |= save

    def _evaluate(self, args: Any, state: Any, control: Any, model: Any) -> tuple[bool, bool]:
        """Return whether to stop and whether to save."""
        from rich.console import Console

        began = time.perf_counter()
        screen = Console(stderr=True, highlight=False)
        with screen.status(f"Evaluating {self._settings.suite} at step {state.global_step}"):
            run = self._run(args, state, model)
        point = point_of(run)
        self._seen[point.step] = point
        failed = {} if lost(run) else run.scores.failed
        if failed:
            self.failures.append(f"step {point.step}: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
            log.error("Evaluation at step %d: %d tasks failed (%s).", point.step, len(failed), ", ".join(failed))
        seconds = time.perf_counter() - began
        self._log(
            args, state, control, {PREFIX + k: v for k, v in point.values.items()} | {PREFIX + "seconds": seconds}
        )
        verdict = self._judge.verdict(self._curve(state), logged(state.log_history))
        screen.print(self._line(point, seconds), soft_wrap=True)
        self._say(state, verdict)
        return bool(verdict.fired), self._is_best(args, state, verdict)

    def _run(self, args: Any, state: Any, model: Any) -> Run:
        if self._plan is None:
            raise DarumeruError("The training did not tell that it began (on_train_begin).")
        tokens = state.num_input_tokens_seen if args.include_num_input_tokens_seen != "no" else None
        training = Training(run=str(self.name), step=state.global_step, tokens_seen=tokens)
        autocast = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
        with untouched(model):
            known = self._plan.model
            if not isinstance(known, LoadedModel):
                raise TypeError("the plan was made for a model folder")
            plan = replace(
                self._plan,
                settings=self._plan.settings.model_copy(update={"training": training}),
                opened=replace(self._plan.opened, model=replace(known, digest=weights_sha256(model))),
                seconds=0.0,
            )
            eos_ids = known.eos_ids(plan.tokenizer)

            def opened(p: Plan) -> MemoryEngine:
                return MemoryEngine(model, p.tokenizer, eos_ids, p.opened.options(p.max_len), autocast)

            whole = [p for p in self._seen.values() if p.run is not None and Run(Path(p.run)).complete]
            top = best(whole, MICRO_AVG, self._judge.metrics) if self.race_against else None
            if top is not None:
                return challenge(plan, Run(Path(str(top.run))), self.runs, open_engine=opened)
            return execute(plan, self.runs, open_engine=opened)

    def _log(self, args: Any, state: Any, control: Any, metrics: dict[str, float]) -> None:
        epoch = {} if state.epoch is None else {"epoch": state.epoch}
        state.log_history.append({**metrics, **epoch, "step": state.global_step})
        if self._trainer is not None:
            due = control.should_log  # an entry of ours must not take the place of the Trainer's
            # Not through Trainer.log: TRL's trainers add to each entry what they have gathered for their next one.
            self._trainer.callback_handler.on_log(args, state, control, {**metrics, **epoch})
            control.should_log = due

    def _curve(self, state: Any) -> list[Point]:
        """The evaluations of this training, those before it was resumed too: the Trainer keeps its log."""
        points: dict[int, Point] = {}
        for entry in state.log_history:
            values = {k.removeprefix(PREFIX): v for k, v in entry.items() if k.startswith(PREFIX)}
            if values:
                step = int(entry["step"])
                points[step] = self._seen.get(step) or Point(step, values, entry.get("num_input_tokens_seen"))
        return list(points.values())

    def _say(self, state: Any, verdict: Verdict) -> None:
        """Log what is new, with the evidence."""
        if not state.is_world_process_zero:
            return
        step = state.global_step
        if verdict.diagnosis and verdict.diagnosis.kind != self._diagnosed:
            log.warning("Step %d: %s", step, verdict.diagnosis.text)
            self._note(verdict.diagnosis, step)
        self._diagnosed = verdict.diagnosis.kind if verdict.diagnosis else None
        for fired in verdict.fired:
            if (fired.rule.text, fired.step) not in self._fired:
                self._fired.add((fired.rule.text, fired.step))
                log.warning("Rule fired, the training stops: %s", fired)
                self._note(fired, fired.step)

    def _note(self, said: Fired | Diagnosis, step: int) -> None:
        with _tolerant():
            note(self.runs, str(self.name), self._settings.suite, said, step)

    def _is_best(self, args: Any, state: Any, verdict: Verdict) -> bool:
        top = verdict.best
        if top is None or top.step != state.global_step:
            return False
        self._best = top
        if top.step == 0:
            self._write_best(args, top, None)  # the model that the training began from; nothing is saved of it
            return False
        return True

    def _write_best(self, args: Any, top: Point, checkpoint: str | None) -> None:
        with _tolerant():
            write_best(Path(args.output_dir), str(self._judge.keep_best), top, checkpoint)

    def _line(self, point: Point, seconds: float) -> Any:
        from rich.text import Text

        titles = self._judge.metrics.titles
        shown = [n for n in ("micro_avg", *self._judge.metrics.groups) if n in point.values]
        scores = " · ".join(f"{titles[n]} {point.values[n]:.3f}" for n in shown)
        return Text(f"{self._settings.suite} at step {point.step} ({seconds:.0f} s): {scores} → {point.run}")


@contextmanager
def _tolerant() -> Iterator[None]:
    """A note that cannot be written (a full disk) must not end a training."""
    try:
        yield
    except OSError as error:
        log.error("A note cannot be written, training continues: %s", error)


def _refuse_settings(args: Any) -> None:
    """Refuse FSDP before its wrapping can be seen on the model.

    Raises:
        UserError: FSDP is on.
    """
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    state = AcceleratorState._shared_state
    if getattr(args, "fsdp", None) or state.get("distributed_type") in (
        DistributedType.FSDP,
        DistributedType.MEGATRON_LM,
    ):
        raise UserError(
            "Under FSDP no process has the whole model, so it cannot be evaluated in memory. Leave out DarumeruCallback, save "
            "checkpoints, and evaluate them beside the training: darumeru watch CHECKPOINTS_DIR --suite darumeru-train."
        )
