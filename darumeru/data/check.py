"""Bundles made and checked: `pull` writes one from the hub, `check` names every fault of one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from darumeru.data.bundle import LOCK_NAME, FolderBundle, HubBundle, Row, open_bundle, read_lock, read_rows
from darumeru.errors import DarumeruError, UserError
from darumeru.files import fingerprint, read_json, slug, write_json, write_jsonl

if TYPE_CHECKING:
    from darumeru.task.base import DarumeruTask
    from darumeru.task.suite import Catalogue, Suite

FORMAT = 1
"""The format of `bundle.json`."""
PARTIAL_NAME = "bundle.partial.json"
"""What an unfinished `pull` has written so far, in the format of `bundle.json`."""


# -- schemas ----------------------------------------------------------------------------------------------------------

_Text = Annotated[StrictStr, Field(min_length=1, pattern=r"\S")]


class _Schema(BaseModel):
    """Fields that are not named are allowed: data sets carry more than the tasks use."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Turn(_Schema):
    role: Literal["system", "user", "assistant", "bot"]
    content: _Text


class _Instructed(_Schema):
    """A row that brings its own conversation, a template over its inputs."""

    messages: Annotated[list[_Turn], Field(min_length=1)]
    inputs: dict[str, StrictStr | StrictInt | StrictFloat]
    outputs: StrictStr
    meta: dict[str, Any] = Field(default_factory=dict)


class _Segment(_Schema):
    segment: _Text


class _MultiQ(_Instructed):
    outputs: Annotated[list[_Segment], Field(min_length=1)]  # type: ignore[assignment]


class _UseMeta(_Schema):
    id_task: Annotated[StrictStr, Field(pattern=r"^([1-9]|1\d|2[0-6])$")]
    variant: StrictInt | _Text
    type: Literal[
        "text",
        "matching",
        "multiple_choice_based_on_text",
        "multiple_choice_options_within_text",
        "multiple_choice_independent_options",
    ]
    max_points: Annotated[float, Field(gt=0)] | None = None


class _Use(_Instructed):
    outputs: _Text
    meta: _UseMeta  # type: ignore[assignment]


class _RutieMeta(_Schema):
    dialog_id: StrictInt | StrictStr
    question_id: StrictInt


class _Rutie(_Instructed):
    meta: _RutieMeta  # type: ignore[assignment]


class _Mmlu(_Schema):
    subject: _Text
    answer: Annotated[int, Field(ge=0, le=3)]
    question_ru: _Text | None = None
    question_en: _Text | None = None
    choices_ru: Annotated[list[StrictStr], Field(min_length=4, max_length=4)] | None = None
    choices_en: Annotated[list[StrictStr], Field(min_length=4, max_length=4)] | None = None


class _Rucola(_Schema):
    sentence: _Text
    label: Literal[0, 1]


class _Treeway(_Schema):
    src_sents: Annotated[list[_Text], Field(min_length=1)]
    summary_sents: Annotated[list[_Text], Field(min_length=1)]
    extractive_summary: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Gazeta(_Schema):
    title: StrictStr
    text: _Text
    summary: _Text


_SCHEMAS: dict[str, type[_Schema]] = {
    "multiq": _MultiQ,
    "use": _Use,
    "rutie": _Rutie,
    "mmlu_nlpcoreteam": _Mmlu,
    "rucola": _Rucola,
    "daru_treeway_eval": _Treeway,
    "gazeta": _Gazeta,
}


# -- check ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a bundle."""

    file: str
    """Relative to the bundle's folder."""
    row: int | None
    """Counted from 1; None if it is no single row's fault."""
    field: str | None
    """`inputs.text`, `messages.0.role`; None if it is no single field's fault."""
    message: str

    def __str__(self) -> str:
        where = [self.file]
        if self.row is not None:
            where.append(f"row {self.row}")
        if self.field is not None:
            where.append(f"field '{self.field}'")
        return f"{', '.join(where)}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What a bundle holds and what can be run on it."""

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
        """The tasks of a suite that can run on the bundle."""
        return tuple(task for task in self.suites[suite] if self.tasks.get(task, "") is None)


def check(bundle: FolderBundle, tasks: Mapping[str, DarumeruTask]) -> list[Fault]:
    """Every fault of the data sets that tasks use; a data set that the bundle does not have is none.

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
    report = inspect(bundle, _ours(catalogue, bundle))
    return replace(report, suites={name: suite.tasks for name, suite in catalogue.suites().items()})


def _ours(catalogue: Catalogue, bundle: FolderBundle) -> dict[str, DarumeruTask]:
    """The tasks of a catalogue that `darumeru run` can run; folders of users may hold stock lm-eval tasks too."""
    names = catalogue.tasks()
    try:
        return catalogue.load(names, bundle)
    except UserError:
        tasks: dict[str, DarumeruTask] = {}
        for name in names:
            with contextlib.suppress(UserError):
                tasks |= catalogue.load([name], bundle)
        return tasks


def inspect(bundle: FolderBundle, tasks: Mapping[str, DarumeruTask]) -> Report:
    """Check the data sets of a bundle row by row: against their schema, then with each task that reads them."""
    have = bundle.datasets()
    sizes: dict[str, dict[str, int]] = {}
    states: dict[str, str | None] = {}
    # A dict keeps the order and drops what two tasks say about the same row.
    faults: dict[Fault, None] = dict.fromkeys(_lock_faults(bundle))
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
    """The faults of one data set, and for each task why it cannot run."""
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
        shared[split] = list(_schema_faults(files[split], rows, _schema(dataset, readers)))
        if not rows:
            shared[split].append(Fault(files[split], None, None, "no rows"))
    own = {task.name: list(_task_faults(task, files, shared)) for task in readers if not _lost(task, shared)}
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


def _lost(task: DarumeruTask, shared: Mapping[str, Sequence[Fault]]) -> bool:
    """Whether a split of the task could not be read at all."""
    return any(fault.row is None for split in task.splits() for fault in shared[split])


def _systematic(faults: Sequence[Fault], sizes: Mapping[str, int]) -> str | None:
    """The one fault that all rows of a task's splits have, in words."""
    if len({(f.field, f.message) for f in faults}) != 1 or any(f.row is None for f in faults):
        return None
    touched = {Path(f.file).name.split(".")[0] for f in faults}
    if len(faults) != sum(sizes[split] for split in touched):
        return None
    return f"no row has a usable field '{faults[0].field}' ({faults[0].message})" if faults[0].field else None


def _schema(dataset: str, readers: Sequence[DarumeruTask]) -> type[_Schema] | None:
    if dataset in _SCHEMAS:
        return _SCHEMAS[dataset]
    return _Instructed if any(task.config.doc_to_text is None for task in readers) else None


def _schema_faults(file: str, rows: Sequence[Row], schema: type[_Schema] | None) -> Iterator[Fault]:
    seen: dict[object, int] = {}
    for number, row in enumerate(rows, start=1):
        if schema is not None:
            try:
                schema.model_validate(row)
            except ValidationError as error:
                # A union reports each of its members, all of them about the same place.
                places = {".".join(str(p) for p in e["loc"] if not _is_type_tag(p)): e for e in error.errors()}
                for place, detail in places.items():
                    yield Fault(file, number, place or None, _in_words(detail))
        key = _id(row)
        if key is not None and seen.setdefault(key, number) != number:
            yield Fault(file, number, "meta.id" if "meta" in row else "id", f"{key} is also that of row {seen[key]}")


def _is_type_tag(part: int | str) -> bool:
    """Whether a part of pydantic's location names a member of a union and no field."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)


def _in_words(detail: Any) -> str:
    value = detail["input"]
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"].startswith("string_") and isinstance(value, str) and not value.strip():
        return "is empty"
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    message = str(detail["msg"])
    return f"{message[0].lower()}{message[1:]}, this is {shown}"


def _id(row: Row) -> str | int | None:
    meta = row.get("meta")
    value = (meta if isinstance(meta, dict) else row).get("id")
    return value if isinstance(value, str | int) else None


_FIELD = re.compile(r"field '([^']+)'\s*:?\s*")


def _named(file: str, row: int | None, text: str) -> Fault:
    """A fault from a task's own words, which begin with `field '…'` where they are about one."""
    match = _FIELD.match(text)
    return Fault(file, row, match[1], text[match.end() :]) if match else Fault(file, row, None, text)


def _task_faults(
    task: DarumeruTask, files: Mapping[str, str], shared: Mapping[str, Sequence[Fault]]
) -> Iterator[Fault]:
    """What a task itself finds wrong with its rows, less what the schema says already."""
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
    """Whether there are examples for the test rows."""
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
    """What is wrong with a row as a few-shot example: it must end with its answer."""
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


def _lock_faults(bundle: FolderBundle) -> Iterator[Fault]:
    """What `bundle.json` says and the files do not hold."""
    if not (bundle.root / LOCK_NAME).is_file():
        return
    try:
        read_lock(bundle.root / LOCK_NAME)
        entries = _entries(bundle.root / LOCK_NAME)
    except UserError as error:
        yield Fault(LOCK_NAME, None, None, str(error))
        return
    for dataset, entry in entries.items():
        for split, source in entry["splits"].items():
            where = f"datasets.{dataset}.splits.{split}"
            try:
                rows = bundle.load("", dataset, split).rows
            except UserError as error:
                yield Fault(LOCK_NAME, None, where, str(error))
                continue
            if fingerprint(rows) != source.get("sha256"):
                yield Fault(LOCK_NAME, None, where, "the split's file no longer holds the rows that 'data pull' wrote")


# -- pull -------------------------------------------------------------------------------------------------------------


def pull(suite: Suite | str, output: Path, lock: Path | None = None, catalogue: Catalogue | None = None) -> Path:
    """Write an offline bundle of all data that a suite reads, from the hub.

    `<dataset>/<split>.jsonl` for the test and few-shot splits, then, last, `bundle.json`: `{"format": 1, "suite",
    "revisions": {repository: commit}, "datasets": {dataset: {"path", "name", "splits": {split: source}}}}`. A pull that
    was interrupted goes on; what it has already written is not fetched again, unless the hub's revision has changed. A
    second suite can be pulled into the same folder.

    Args:
        suite: the suite or its name.
        output: the folder.
        lock: a `bundle.json` whose revisions are fetched.
        catalogue: where the tasks are looked up.

    Returns:
        The path of `bundle.json`.

    Raises:
        UserError: no such suite, or the folder holds other data.
        DarumeruError: the hub cannot be reached.
    """
    from darumeru.task.suite import Catalogue

    catalogue = catalogue or Catalogue()
    suite = catalogue.suite(suite) if isinstance(suite, str) else suite
    if output.exists() and not output.is_dir():
        raise UserError(f"'{output}' is a file; --output must be a folder.")
    hub = HubBundle(read_lock(lock) if lock else {})
    wanted = _wanted(catalogue.load(suite.tasks, hub))
    before = _manifest(output)
    # All revisions first: a hub that cannot be reached is known before anything is written.
    revisions = {path: hub.revision(path) for path in dict.fromkeys(path for path, _, _ in wanted.values())}
    _same_revisions(before, wanted, revisions, output)
    suites = sorted({*filter(None, str(before.get("suite", "")).split(", ")), suite.name})
    datasets: dict[str, Any] = dict(before.get("datasets", {}))
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "suite": ", ".join(suites),
        "revisions": {**before.get("revisions", {}), **revisions},
        "datasets": datasets,
    }
    todo = []
    for dataset, (path, name, splits) in wanted.items():
        old = datasets.get(dataset, {}).get("splits", {})
        for split in splits:
            file = output / dataset / f"{split}.jsonl"
            if split not in old and file.exists():
                raise UserError(f"'{file}' is there already and no pull has written it; choose another --output.")
            if not _complete(file, old.get(split), revisions[path]):
                todo.append((dataset, path, name, split, file))
        datasets[dataset] = {"path": path, "name": name, "splits": dict(old)}
    if todo:
        write_json(output / PARTIAL_NAME, manifest)
        (output / LOCK_NAME).unlink(missing_ok=True)  # it means that the bundle is complete
    for dataset, path, name, split, file in todo:
        loaded = hub.load(path, name, split)
        write_jsonl(file, loaded.rows)
        datasets[dataset]["splits"][split] = loaded.source
        manifest["revisions"] |= hub.lock  # the revision of a conversion is known only now
        write_json(output / PARTIAL_NAME, manifest)
    write_json(output / LOCK_NAME, manifest)
    (output / PARTIAL_NAME).unlink(missing_ok=True)
    return output / LOCK_NAME


Wanted = dict[str, tuple[str, str | None, list[str]]]
"""Data set → hub path, configuration, splits."""


def _wanted(tasks: Mapping[str, DarumeruTask]) -> Wanted:
    wanted: Wanted = {}
    for task in tasks.values():
        path, name = str(task.config.dataset_path), task.config.dataset_name
        for part in (task.dataset, *task.splits()):
            if slug(part) != part:
                raise UserError(f"Task '{task.name}': '{part}' cannot be the name of a file of a bundle.")
        known = wanted.setdefault(task.dataset, (path, name, []))
        if known[:2] != (path, name):
            raise UserError(f"Data sets '{known[0]}' and '{path}' would both be '{task.dataset}' in a bundle.")
        known[2].extend(split for split in task.splits() if split not in known[2])
    return wanted


def _entries(file: Path) -> dict[str, Any]:
    """The data sets that a manifest lists.

    Raises:
        UserError: it is no manifest of ours.
    """
    content = read_json(file)
    entries = content.get("datasets") if isinstance(content, dict) else None
    well_formed = isinstance(entries, dict) and all(
        slug(dataset) == dataset
        and isinstance(entry, dict)
        and isinstance(entry.get("splits"), dict)
        and all(slug(split) == split and isinstance(source, dict) for split, source in entry["splits"].items())
        for dataset, entry in entries.items()
    )
    if not isinstance(entries, dict) or not well_formed:
        raise UserError(f"'{file}' was not written by 'darumeru data pull'; choose another --output.")
    if content.get("format") != FORMAT:
        raise UserError(f"'{file}' has format {content.get('format')}; this version of darumeru reads format {FORMAT}.")
    return entries


def _manifest(output: Path) -> dict[str, Any]:
    """What earlier pulls wrote into the folder, finished or not."""
    for file in (output / PARTIAL_NAME, output / LOCK_NAME):
        if file.is_file():
            revisions, entries = read_lock(file), _entries(file)
            return {"suite": read_json(file).get("suite", ""), "revisions": revisions, "datasets": entries}
    return {}


def _same_revisions(before: Mapping[str, Any], wanted: Wanted, revisions: Mapping[str, str], output: Path) -> None:
    """A bundle pins one revision of a repository, also where two suites share it.

    Raises:
        UserError: data sets that stay as they are have another revision than those that are fetched.
    """
    for dataset, entry in before.get("datasets", {}).items():
        old = before["revisions"].get(entry.get("path"))
        stays = dataset not in wanted and entry["splits"]
        if stays and entry.get("path") in revisions and revisions[entry["path"]] != old:
            raise UserError(
                f"'{output}' holds data set '{dataset}' of '{entry['path']}' at revision {old}, and the hub is now at "
                f"{revisions[entry['path']]}. Fetch the same revision with --lock, or choose another --output."
            )


def _complete(file: Path, source: Any, revision: str) -> bool:
    """Whether a split is on disk as an earlier pull of the same revision wrote it."""
    if source is None or source.get("revision") != revision or not file.is_file():
        return False
    try:
        return fingerprint(read_rows(file)) == str(source.get("sha256"))
    except DarumeruError:
        return False
