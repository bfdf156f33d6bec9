"""Bundles checked with the tasks that read them: every fault, named with file, row and field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from darumeru.data.bundle import FolderBundle, Row, open_bundle
from darumeru.data.check import Fault, lock_faults, schema_faults
from darumeru.data.schemas import SCHEMAS, InstructedRow, RowSchema
from darumeru.errors import UserError
from darumeru.task.base import DarumeruTask
from darumeru.task.suite import Catalogue


@dataclass(frozen=True)
class Report:
    """The data sets of a bundle, their faults, and the tasks that can run on it."""

    bundle: str
    datasets: dict[str, dict[str, int]] = field(default_factory=dict)
    """Data set → split → rows, of the splits that tasks use."""
    tasks: dict[str, str | None] = field(default_factory=dict)
    """Task → why it cannot run on the bundle; None if it can."""
    suites: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Suite → its tasks."""
    unused: tuple[str, ...] = ()
    """Data sets that no task uses."""
    faults: list[Fault] = field(default_factory=list)

    def ready(self, suite: str) -> tuple[str, ...]:
        """Return the tasks of a suite that can run on the bundle."""
        return tuple(task for task in self.suites[suite] if self.tasks.get(task, "") is None)


def check(bundle: FolderBundle, tasks: Mapping[str, DarumeruTask]) -> list[Fault]:
    """Return every fault of the data sets that tasks use; a data set that the bundle does not have is none.

    Args:
        bundle: the folder.
        tasks: the tasks, loaded on this bundle (`Catalogue.load`).
    """
    return inspect(bundle, tasks).faults


def check_folder(path: str | Path, catalogue: Catalogue) -> Report:
    """Check the bundle in a folder (or `mini`) against all tasks of a catalogue.

    Raises:
        UserError: there is no bundle at `path`.
    """
    if str(path) == "hub":
        raise UserError(
            "'hub' cannot be checked: give the folder of a bundle, or 'mini'. 'darumeru data pull' makes one."
        )
    bundle = open_bundle(path)
    assert isinstance(bundle, FolderBundle)  # noqa: S101 - everything but the hub is a folder
    report = inspect(bundle, catalogue.runnable(bundle))
    return replace(report, suites={name: suite.tasks for name, suite in catalogue.suites().items()})


def inspect(bundle: FolderBundle, tasks: Mapping[str, DarumeruTask]) -> Report:
    """Check the data sets of a bundle row by row: against their schema, then with each task that reads them."""
    have = bundle.datasets()
    sizes: dict[str, dict[str, int]] = {}
    states: dict[str, str | None] = {}
    # A dict keeps the order and drops what two tasks say about the same row.
    faults: dict[Fault, None] = dict.fromkeys(lock_faults(bundle))
    by_dataset: dict[str, list[DarumeruTask]] = {}
    for task in tasks.values():
        by_dataset.setdefault(task.dataset, []).append(task)
    for dataset, readers in sorted(by_dataset.items()):
        if dataset not in have:
            states |= {task.name: f"the bundle has no data set '{dataset}'" for task in readers}
            continue
        found, blocked = _check_dataset(bundle, dataset, readers, sizes.setdefault(dataset, {}))
        faults |= dict.fromkeys(found)
        states |= blocked
    unused = tuple(dataset for dataset in have if dataset not in by_dataset)
    return Report(bundle.name, sizes, states, unused=unused, faults=list(faults))


def _check_dataset(
    bundle: FolderBundle, dataset: str, readers: Sequence[DarumeruTask], sizes: dict[str, int]
) -> tuple[list[Fault], dict[str, str | None]]:
    """Return the faults of one data set, and for each task why it cannot run."""
    shared: dict[str, list[Fault]] = {}
    files: dict[str, str] = {}
    for split in dict.fromkeys(s for task in readers for s in task.splits()):
        try:
            file = bundle.file(dataset, split)
            files[split] = str(file.relative_to(bundle.root))
            rows = bundle.load("", dataset, split).rows
        except UserError as error:
            missing = split not in files
            name = f"{dataset}/{split}.jsonl" if missing else files[split]
            shared[split] = [Fault(name, None, None, f"split '{split}' is missing" if missing else str(error))]
            continue
        sizes[split] = len(rows)
        shared[split] = list(schema_faults(files[split], rows, _schema(dataset, readers)))
        if not rows:
            shared[split].append(Fault(files[split], None, None, "no rows"))
    own = {task.name: list(_task_faults(task, files, shared)) for task in readers if not _unreadable(task, shared)}
    blocked: dict[str, str | None] = {}
    faults = [fault for split in shared.values() for fault in split]
    for task in readers:
        mine = own.get(task.name, [])
        reason = _systematic(mine, sizes)
        clean = any(not own.get(other.name, [None]) for other in readers)
        if reason and clean:
            # The data set serves another task: it was made without the fields of this one (MMLU in English only).
            blocked[task.name] = f"data set '{dataset}': {reason}"
            continue
        faults += mine
        wrong = len({f for s in task.splits() for f in shared[s]} | set(mine))
        blocked[task.name] = f"data set '{dataset}' has {wrong} fault{'s'[: wrong != 1]}" if wrong else None
    return faults, blocked


def _unreadable(task: DarumeruTask, shared: Mapping[str, Sequence[Fault]]) -> bool:
    """Return whether a split of the task could not be read at all."""
    return any(fault.row is None for split in task.splits() for fault in shared[split])


def _systematic(faults: Sequence[Fault], sizes: Mapping[str, int]) -> str | None:
    """Return the one fault that all rows of a task's splits have, in words."""
    if len({(f.field, f.message) for f in faults}) != 1 or any(f.row is None for f in faults):
        return None
    touched = {Path(f.file).name.split(".")[0] for f in faults}
    if len(faults) != sum(sizes[split] for split in touched):
        return None
    return f"no row has a usable field '{faults[0].field}' ({faults[0].message})" if faults[0].field else None


def _schema(dataset: str, readers: Sequence[DarumeruTask]) -> type[RowSchema] | None:
    if dataset in SCHEMAS:
        return SCHEMAS[dataset]
    return InstructedRow if any(task.config.doc_to_text is None for task in readers) else None


_FIELD = re.compile(r"field '([^']+)'\s*:?\s*")


def _named(file: str, row: int | None, text: str) -> Fault:
    """Return the fault that a task states in words, which begin with `field '…'` where they are about one."""
    match = _FIELD.match(text)
    return Fault(file, row, match[1], text[match.end() :]) if match else Fault(file, row, None, text)


def _task_faults(
    task: DarumeruTask, files: Mapping[str, str], shared: Mapping[str, Sequence[Fault]]
) -> Iterator[Fault]:
    """Yield what a task itself finds wrong with its rows, less what the schema says already."""
    for split in task.splits():
        known = {fault.row for fault in shared[split]}
        # A task may read other rows with a row (a dialogue's earlier turns) and then trips over their faults.
        echoes = {fault.field.rsplit(".", 1)[-1] for fault in shared[split] if fault.field}
        rows = task.split(split).rows
        is_test = split == task.config.test_split
        for number, row in enumerate(rows[: task.options.max_docs] if is_test else rows, start=1):
            if number in known:
                continue
            text = task.check(row)
            fault = _named(files[split], number, text) if text else None
            if fault is None and not is_test:
                fault = _example_fault(task, files[split], number, row)
            if fault is not None and (fault.field or "").rsplit(".", 1)[-1] not in echoes:
                yield fault
    yield from _example_supply(task, files)


def _example_supply(task: DarumeruTask, files: Mapping[str, str]) -> Iterator[Fault]:
    """Yield what the test rows lack of few-shot examples."""
    splits = task.splits()
    if len(splits) < 2:
        return
    shots = task.split(splits[1]).rows[task.options.fewshot_start :]
    if not shots:
        message = f"its examples begin at row {task.options.fewshot_start + 1}, and there are no more rows"
        yield Fault(files[splits[1]], None, None, message)
    elif match := task.options.fewshot_match:
        wanted = dict.fromkeys(row.get(match) for row in task.split(splits[0]).rows)
        for value in wanted:
            if not any(row.get(match) == value for row in shots):
                yield Fault(files[splits[1]], None, match, f"no example has '{value}', which '{splits[0]}' asks about")


def _example_fault(task: DarumeruTask, file: str, number: int, row: Row) -> Fault | None:
    """Return what is wrong with a row as a few-shot example: it must end with its answer."""
    try:
        last = task.messages(row, with_answer=True)[-1]
        golds = _golds(task, row)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        return Fault(file, number, "messages", f"no example can be made of it ({error})")
    if last["role"] != "assistant":
        return Fault(
            file, number, "messages", f"an example must end with an assistant turn, this ends with '{last['role']}'"
        )
    said = _squeezed(last["content"])
    if not any(_squeezed(gold) in said for gold in golds):
        return Fault(file, number, "messages", f"the last turn of an example must hold the answer '{golds[0]}'")
    return None


def _golds(task: DarumeruTask, row: Row) -> list[str]:
    gold = task.gold(row)
    golds = [str(g) for g in gold] if isinstance(gold, list) else [str(gold)]
    meta = row.get("meta")
    if isinstance(meta, dict) and meta.get("type") == "text":  # an exam's key lists words of which each will do
        golds += [part for g in golds for part in g.split(",")]
    return golds


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()
