"""Suites: named sets of tasks with groups and a summary score, written as lm-eval groups under `tasks/`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.data.bundle import Bundle
from darumeru.errors import DarumeruError, UserError, one_line, unknown
from darumeru.files import read_yaml, slug

if TYPE_CHECKING:
    from darumeru.task.base import DarumeruTask
    from darumeru.task.options import Wording

# In a wheel the tasks lie inside the package, in a checkout beside it.
_INSIDE = Path(__file__).parents[1] / "tasks"
TASKS = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[2] / "tasks"


@dataclass(frozen=True)
class Group:
    """Tasks whose mean is shown as one number."""

    name: str
    title: str
    tasks: tuple[str, ...]
    counts: bool = True
    """False if its tasks do not count in the suite's mean (bits per byte do not mix with shares of right answers)."""

    def describe(self) -> dict[str, Any]:
        """Return the group as a record states it."""
        described = {"name": self.name, "title": self.title, "tasks": list(self.tasks)}
        return described if self.counts else described | {"counts": False}


@dataclass(frozen=True)
class Suite:
    """A named set of tasks."""

    name: str
    summary: str
    """Title of the mean over all its tasks."""
    groups: tuple[Group, ...]
    version: str
    limits: Mapping[str, int] = field(default_factory=dict)
    """Task → how many documents the suite asks of it, where not all."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, group by group."""
        return tuple(task for group in self.groups for task in group.tasks)

    @property
    def counted(self) -> tuple[str, ...]:
        """The tasks whose mean is the suite's score."""
        return tuple(task for group in self.groups if group.counts for task in group.tasks)

    def only(self, tasks: Sequence[str]) -> Suite:
        """Return the suite with no other than these tasks; its means are named so that none is taken for the whole suite's."""
        groups = []
        for group in self.groups:
            if chosen := tuple(t for t in group.tasks if t in tasks):
                whole = len(chosen) == len(group.tasks)
                title = group.title if whole else f"{group.title}, {len(chosen)} of {len(group.tasks)}"
                groups.append(Group(group.name, title, chosen, group.counts))
        part = replace(self, groups=tuple(groups))
        return part if part.counted == self.counted else replace(part, summary=_mean_of(part.counted, self.counted))

    def limit(self, task: str, limit: int | None) -> int | None:
        """Return how many documents of a task are asked under a limit for all tasks; None for all of them."""
        known = [n for n in (limit, self.limits.get(task)) if n is not None]
        return min(known, default=None)


def _mean_of(counted: Sequence[str], tasks: Sequence[str]) -> str:
    """Return the title of a mean over some of the tasks."""
    if not counted:
        return "No mean"
    return f"Mean of {len(counted)} {'' if len(counted) == len(tasks) else f'of {len(tasks)} '}tasks"


def summarise(suite: Suite, scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return the score of each group and of the suite: the means over their tasks, None where a task has no score.

    >>> suite = Suite("s", "Mean", (Group("a", "A", ("x", "y")), Group("b", "B", ("z",))), "1")
    >>> summarise(suite, {"x": 0.0, "y": 1.0, "z": 0.2})
    {'a': 0.5, 'b': 0.2, 's': 0.4}
    """
    sets = {g.name: g.tasks for g in suite.groups} | {suite.name: suite.counted}
    return {
        name: float(np.mean([scores[t] for t in tasks])) if tasks and all(t in scores for t in tasks) else None
        for name, tasks in sets.items()
    }


class Catalogue:
    """The tasks and suites that can be run: ours, and those of further folders of lm-eval YAML files.

    Args:
        include_path: further folders; a task there replaces one of ours with the same name.

    Raises:
        UserError: such a folder does not exist, or lm-eval cannot read what is in it.
    """

    def __init__(self, include_path: Iterable[Path] = ()) -> None:
        for path in include_path:
            if not path.is_dir():
                raise UserError(f"--include-path '{path}' is no folder.")
        # lm-eval keeps the first of equal names.
        self.paths = [*include_path, TASKS]
        self._index = _manager(self.paths).task_index

    def tasks(self) -> list[str]:
        """Return the names of all tasks."""
        return sorted(n for n, entry in self._index.items() if entry.kind.name in ("TASK", "PY_TASK"))

    def suites(self) -> dict[str, Suite]:
        """Return all suites by name."""
        found = {}
        for name, entry in self._index.items():
            if entry.kind.name == "GROUP":
                found[name] = read_suite(entry.cfg)
        return found

    def suite(self, name: str, tasks: Sequence[str] = ()) -> Suite:
        """Return a suite, or those of its tasks that are named; tasks that are not the suite's form groups of their own.

        Their shares count in the mean, as a user picked them; what is measured otherwise does not.

        Raises:
            UserError: no such suite or task.
        """
        suites = self.suites()
        if name not in suites:
            raise unknown("suite", name, suites)
        suite = suites[name]
        for task in tasks:
            if task not in self.tasks():
                raise unknown("task", task, self.tasks())
        if not tasks:
            return suite
        foreign = tuple(dict.fromkeys(t for t in tasks if t not in suite.tasks))
        chosen = suite.only(tasks)
        if not foreign:
            return chosen
        whole = replace(chosen, groups=(*chosen.groups, *self._others(foreign)))
        if chosen.counted and whole.counted == chosen.counted:
            return whole
        return replace(whole, summary=_mean_of(whole.counted, whole.tasks))

    def _others(self, names: Sequence[str]) -> list[Group]:
        """Return groups of tasks: the shares, and one for each other measure."""
        alike: dict[str, list[str]] = {}
        loaded = self.load(names, "mini")  # no row is read
        for name, task in sorted(loaded.items(), key=lambda item: not item[1].is_share):
            alike.setdefault("" if task.is_share else " + ".join(task.primary), []).append(name)
        return [
            Group(
                "other" if number == 0 else f"other_{slug(measure)}",
                f"Other tasks, {measure}" if measure else "Other tasks",
                tuple(name for name in names if name in members),
                counts=not measure,
            )
            for number, (measure, members) in enumerate(alike.items())
        ]

    def load(
        self,
        tasks: Sequence[str],
        bundle: Bundle | str = "hub",
        wording: Mapping[str, Wording] | None = None,
        likelihood: bool = False,
        corpus: Path | None = None,
    ) -> dict[str, DarumeruTask]:
        """Return the task objects, by name.

        Args:
            tasks: names.
            bundle: where their rows come from.
            wording: task → wording that replaces its own.
            likelihood: ask for the likelihood of gold answers in place of answers.
            corpus: the text file that `bpb_corpus` measures.

        Raises:
            UserError: a task is no Darumeru task, or its data is not as it must be.
        """
        from darumeru.task.base import DarumeruTask

        manager = _manager(
            self.paths, {"data": bundle, "wording": dict(wording or {}), "likelihood": likelihood, "corpus": corpus}
        )
        loaded: dict[str, Any] = {}
        for name in tasks:
            if name not in self._index:  # a suite of a user's may name it
                raise unknown("task", name, self.tasks())
            if self._index[name].kind.name != "PY_TASK":
                raise _not_ours(name)
            try:
                loaded |= manager.load(name)["tasks"]
            except (DarumeruError, OSError, ImportError):
                raise
            except Exception as error:  # whatever lm-eval makes of a file of somebody's
                raise UserError(f"Task '{name}' cannot be read ({one_line(error)}). Correct its YAML file.") from error
        for name, task in loaded.items():
            if not isinstance(task, DarumeruTask):
                raise _not_ours(name)
        return loaded

    def runnable(self, bundle: Bundle | str = "hub") -> dict[str, DarumeruTask]:
        """Return the tasks that `darumeru run` can run, by name; folders of users may hold stock lm-eval tasks too."""
        names = self.tasks()
        try:
            return self.load(names, bundle)
        except UserError:
            tasks: dict[str, DarumeruTask] = {}
            for name in names:
                with contextlib.suppress(UserError):
                    tasks |= self.load([name], bundle)
            return tasks


def _not_ours(name: str) -> UserError:
    return UserError(
        f"Task '{name}' is a stock lm-eval task; darumeru runs tasks whose YAML names a class of darumeru.task. "
        "See 'Add a task' in CONTRIBUTING.md."
    )


def _manager(paths: Sequence[Path], metadata: dict[str, Any] | None = None) -> Any:
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of tasks that an --include-path replaces on purpose
    # Later folders override earlier ones in lm-eval's documentation, but the first of equal names is kept in 0.4.13.
    try:
        return TaskManager(include_path=list(paths), include_defaults=False, metadata=metadata)
    except (DarumeruError, OSError, ImportError):
        raise
    except Exception as error:
        where = ", ".join(f"'{path}'" for path in paths if path != TASKS)
        raise UserError(f"The tasks in {where or 'our own folder'} cannot be read ({one_line(error)}).") from error


def read_suite(cfg: Mapping[str, Any]) -> Suite:
    """Return the suite that an lm-eval group file describes."""
    groups: list[Group] = []
    plain: list[str] = []
    for member in cfg["task"]:
        if isinstance(member, dict) and "group" in member:
            title = str(member.get("group_alias", member["group"]))
            counts = bool((member.get("metadata") or {}).get("counts", True))
            groups.append(Group(str(member["group"]), title, tuple(map(str, member["task"])), counts))
        else:
            plain.append(str(member["task"] if isinstance(member, dict) else member))
    if plain:
        groups.append(Group("tasks", "Tasks", tuple(plain)))
    name, metadata = str(cfg["group"]), cfg.get("metadata") or {}
    limits = {str(task): count for task, count in (metadata.get("limits") or {}).items()}
    known = [task for group in groups for task in group.tasks]
    for task, count in limits.items():
        if task not in known:
            raise unknown(f"task in the limits of suite '{name}'", task, known)
        if not isinstance(count, int) or count < 1:
            raise UserError(
                f"Suite '{name}': limits: {task}: {count!r} is not possible. Give a number of documents from 1."
            )
    return Suite(name, str(cfg.get("group_alias", "Mean")), tuple(groups), str(metadata.get("version", "0")), limits)


def read_wording(file: Path) -> dict[str, Wording]:
    """Return task → wording from a YAML file.

    Raises:
        UserError: it is missing, no YAML mapping, or has a key that cannot be overridden.
    """
    from pydantic import ValidationError

    from darumeru.task.options import Wording

    content = read_yaml(file, "Wording file")
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UserError(
            f"Wording file '{file}' must map task names to the prompt settings to override, e.g. 'rucola: {{gen_prefix: …}}'."
        )
    try:
        return {str(task): Wording(**value) for task, value in content.items()}
    except (ValidationError, TypeError) as error:
        allowed = ", ".join(Wording.model_fields)
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, detail["loc"]))
        raise UserError(f"Wording file '{file}': {where}: {detail['msg']}. It may override: {allowed}.") from None
