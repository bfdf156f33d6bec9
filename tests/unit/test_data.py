"""`data check` names what would break a run; `data pull` writes a bundle that runs offline, and goes on after a crash."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.bundle import MINI, FolderBundle, Row, open_bundle, read_lock, read_rows
from darumeru.data.check import Fault
from darumeru.errors import DarumeruError, UserError
from darumeru.files import write_jsonl
from darumeru.task.check import check, check_folder
from darumeru.task.pull import pull
from darumeru.task.suite import Catalogue
from support.hub import Hub, Trouble


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the mini bundle that a test may spoil."""
    return Path(shutil.copytree(MINI, tmp_path / "mine"))


def spoil(folder: Path, dataset: str, split: str, number: int, change: Callable[[Row], Any]) -> None:
    """Change row `number` (from 1) of a split."""
    file = folder / dataset / f"{split}.jsonl"
    rows = read_rows(file)
    change(rows[number - 1])
    write_jsonl(file, rows)


# -- check ------------------------------------------------------------------------------------------------------------


def test_mini_has_no_faults_and_serves_all_suites(catalogue: Catalogue) -> None:
    report = check_folder("mini", catalogue)
    assert report.faults == []
    assert len(report.ready("darumeru")) == 17
    assert len(report.ready("darumeru-extended")) == 6
    assert report.unused == ()


def set_in(*path: Any, to: Any) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        place: Any = row
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to

    return change


def drop(*path: Any) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        place: Any = row
        for part in path[:-1]:
            place = place[part]
        del place[path[-1]]

    return change


FAULTS = [
    ("parus", "test", drop("inputs", "choice2"), "choice2", "missing"),
    ("parus", "test", set_in("outputs", to="3"), "outputs", "label '3' is not one of 1, 2"),
    ("parus", "test", set_in("outputs", to=1), "outputs", "string"),
    ("parus", "test", set_in("messages", 0, "role", to="human"), "messages.0.role", "this is 'human'"),
    ("parus", "test", set_in("messages", 0, "content", to="  "), "messages.0.content", "is empty"),
    ("parus", "test", set_in("messages", 0, "content", to="{premise.__class__}"), None, "is not a plain name"),
    ("parus", "test", drop("messages"), "messages", "is missing"),
    ("parus", "test", set_in("meta", "id", to=0), "meta.id", "0 is also that of row 1"),
    ("parus", "prompt", set_in("messages", -1, "content", to="Ответ:"), "messages", "must hold the answer"),
    ("parus", "prompt", lambda row: row["messages"].pop(), "messages", "must end with an assistant turn"),
    ("rwsd", "test", set_in("inputs", "text", to=None), "inputs.text", "this is None"),
    ("rwsd", "test", set_in("inputs", "text", to=["а"]), "inputs.text", "this is ['а']"),
    ("use", "test", set_in("meta", "type", to="multiple_choice"), "meta.type", "matching"),
    ("use", "test", drop("meta", "variant"), "meta.variant", "is missing"),
    ("use", "test", set_in("meta", "id_task", to="27"), "meta.id_task", "this is '27'"),
    ("use", "test", set_in("meta", "id_task", to=8), "meta.id_task", "this is 8"),
    ("use", "test", set_in("meta", "id_task", to="8_5"), "meta.id_task", "this is '8_5'"),
    ("use", "test", set_in("outputs", to=""), "outputs", "is empty"),
    ("multiq", "test", set_in("outputs", to=[]), "outputs", "this is []"),
    ("multiq", "test", set_in("outputs", to="Волга"), "outputs", "this is 'Волга'"),
    ("multiq", "test", drop("outputs", 0, "segment"), "outputs.0.segment", "is missing"),
    ("rucola", "validation", set_in("label", to="1"), "label", "this is '1'"),
    ("rucola", "validation", set_in("sentence", to=""), "sentence", "is empty"),
    ("rucola", "train", drop("label"), "label", "is missing"),
    ("mmlu_nlpcoreteam", "test", set_in("answer", to=4), "answer", "this is 4"),
    ("mmlu_nlpcoreteam", "test", set_in("choices_ru", to=["а", "б", "в"]), "choices_ru", "at least 4"),
    ("mmlu_nlpcoreteam", "test", drop("question_en"), "question_en", "is undefined"),
    ("daru_treeway_eval", "test", set_in("extractive_summary", to=[]), "extractive_summary", "at least 1"),
    ("daru_treeway_eval", "test", set_in("src_sents", 0, to=""), "src_sents.0", "is empty"),
    ("daru_treeway_eval", "prompt", set_in("summary_sents", to="Одной строкой."), "summary_sents", "list"),
    ("gazeta", "validation", drop("summary"), "summary", "is missing"),
    ("flores", "test", drop("inputs", "en"), "en", "missing"),
    ("cp_sent_ru", "test", set_in("inputs", "text", to=" "), "inputs.text", "must be a non-empty text"),
    ("rutie", "test", drop("meta", "question_id"), "meta.question_id", "is missing"),
    ("ruopenbookqa", "test", set_in("outputs", to="Я"), "outputs", "label 'Я'"),
]


@pytest.mark.parametrize(("dataset", "split", "change", "field", "message"), FAULTS)
def test_each_fault_is_named_with_file_row_and_field(
    bundle: Path, catalogue: Catalogue, dataset: str, split: str, change: Any, field: str | None, message: str
) -> None:
    spoil(bundle, dataset, split, 3, change)
    keep = FolderBundle(bundle, "mine")
    names = [n for n, task in catalogue.load(catalogue.tasks(), keep).items() if task.dataset == dataset]
    faults = check(keep, catalogue.load(names, keep))
    assert [(f.file, f.row, f.field) for f in faults] == [(f"{dataset}/{split}.jsonl", 3, field)]
    assert message in faults[0].message
    assert str(faults[0]).startswith(f"{dataset}/{split}.jsonl, row 3")


def test_all_faults_are_listed_at_once_and_block_only_their_tasks(bundle: Path, catalogue: Catalogue) -> None:
    spoil(bundle, "parus", "test", 2, drop("inputs", "premise"))
    spoil(bundle, "parus", "test", 5, set_in("outputs", to="x"))
    spoil(bundle, "rcb", "test", 1, drop("outputs"))
    (bundle / "rwsd" / "prompt.jsonl").unlink()
    (bundle / "use" / "test.jsonl").write_text('{"messages": []}\n{broken\n')
    shutil.rmtree(bundle / "multiq")
    report = check_folder(bundle, catalogue)
    assert {(f.file, f.row) for f in report.faults} == {
        ("parus/test.jsonl", 2),
        ("parus/test.jsonl", 5),
        ("rcb/test.jsonl", 1),
        ("rwsd/prompt.jsonl", None),
        ("use/test.jsonl", None),
    }
    assert Fault("rwsd/prompt.jsonl", None, None, "split 'prompt' is missing") in report.faults
    assert any("line 2: not valid JSON" in f.message for f in report.faults)
    named = [*report.suites["darumeru"], *report.suites["darumeru-extended"]]
    blocked = {task: reason for task, reason in report.tasks.items() if reason and task in named}
    assert blocked == {
        "parus": "data set 'parus' has 2 faults",
        "rcb": "data set 'rcb' has 1 fault",
        "rwsd": "data set 'rwsd' has 1 fault",
        "use": "data set 'use' has 1 fault",
        "multiq": "the bundle has no data set 'multiq'",
    }
    assert len(report.ready("darumeru")) == 12
    assert len(report.ready("darumeru-extended")) == 6


def test_a_row_that_is_no_object(bundle: Path, catalogue: Catalogue) -> None:
    (bundle / "rcb" / "test.jsonl").write_text('{"a": 1}\n[1]\n')
    faults = check_folder(bundle, catalogue).faults
    assert len(faults) == 1
    assert "line 2: a row must be a JSON object" in faults[0].message


def test_data_set_for_one_of_two_tasks_is_no_fault(bundle: Path, catalogue: Catalogue) -> None:
    for split in ("test", "dev"):
        file = bundle / "mmlu_nlpcoreteam" / f"{split}.jsonl"
        write_jsonl(file, [{k: v for k, v in r.items() if not k.endswith("_ru")} for r in read_rows(file)])
    report = check_folder(bundle, catalogue)
    assert report.faults == []
    assert report.tasks["mmlu_en"] is None
    assert "question_ru" in str(report.tasks["mmlu_ru"])


def test_subject_without_examples(bundle: Path, catalogue: Catalogue) -> None:
    file = bundle / "mmlu_nlpcoreteam" / "dev.jsonl"
    write_jsonl(file, [r for r in read_rows(file) if r["subject"] != "astronomy"])
    faults = check_folder(bundle, catalogue).faults
    assert [(f.file, f.field) for f in faults] == [("mmlu_nlpcoreteam/dev.jsonl", "subject")]
    assert "no example has 'astronomy'" in faults[0].message


def test_too_short_train_for_the_examples_of_rucola(bundle: Path, catalogue: Catalogue) -> None:
    file = bundle / "rucola" / "train.jsonl"
    write_jsonl(file, read_rows(file)[:29])
    faults = check_folder(bundle, catalogue).faults
    assert [str(f) for f in faults] == ["rucola/train.jsonl: its examples begin at row 30, and there are no more rows"]


def test_a_data_set_that_no_task_reads_is_named(bundle: Path, catalogue: Catalogue) -> None:
    shutil.copytree(bundle / "cp_sent_ru", bundle / "cp_sent_kk")
    assert check_folder(bundle, catalogue).unused == ("cp_sent_kk",)


def test_check_needs_a_bundle(tmp_path: Path, catalogue: Catalogue) -> None:
    with pytest.raises(UserError, match="'hub' cannot be checked"):
        check_folder("hub", catalogue)
    with pytest.raises(UserError, match="Unknown bundle"):
        check_folder(tmp_path / "nowhere", catalogue)
    with pytest.raises(UserError, match="is no bundle"):
        check_folder(tmp_path, catalogue)


# -- pull -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """A hub with the data sets of both suites, which the clients of this process talk to."""
    hub.serves(monkeypatch, tmp_path / "home")
    return hub


def rows_fetched(hub: Hub) -> set[tuple[str, str]]:
    """Repository and file of all rows that were fetched."""
    found = [(repository, path) for repository, _, path in hub.fetched() if path.endswith((".jsonl", ".parquet"))]
    assert len(found) == len(set(found)), "fetched twice"
    return set(found)


def commits(hub: Hub) -> dict[str, str]:
    """What a lock states of the hub as it is."""
    states = {name: repository.branches for (_, name), repository in hub.repositories.items()}
    return {
        name if branch == "main" else f"{name}@{branch}": sha
        for name, branches in states.items()
        for branch, sha in branches.items()
    }


def test_pull_writes_a_bundle_that_checks_and_pins(hub: Hub, tmp_path: Path, catalogue: Catalogue) -> None:
    manifest = pull(catalogue.suite("darumeru"), tmp_path / "out")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    state = commits(hub)
    assert (content["format"], content["suite"]) == (1, "darumeru")
    assert content["revisions"] == read_lock(manifest) == {k: v for k, v in state.items() if "gazeta" not in k}
    assert content["datasets"]["rucola"]["path"] == "RussianNLP/rucola"
    assert content["datasets"]["rucola"]["name"] is None
    assert content["datasets"]["parus"]["name"] == "parus"
    source = content["datasets"]["parus"]["splits"]["test"]
    assert source["revision"] == state["RefalMachine/darumeru"]
    assert source["rows"] == 28
    # The loading script of RuCoLA runs nowhere; that its conversion was read instead is on record.
    rucola = content["datasets"]["rucola"]["splits"]["train"]
    converted = state["RussianNLP/rucola@refs/convert/parquet"]
    assert (rucola["conversion"], rucola["conversion_revision"]) == ("refs/convert/parquet", converted)
    assert "conversion" not in source
    assert read_rows(tmp_path / "out" / "parus" / "test.jsonl") == read_rows(MINI / "parus" / "test.jsonl")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_file()) == ["bundle.json"]
    report = check_folder(tmp_path / "out", catalogue)
    assert report.faults == []
    assert len(report.ready("darumeru")) == 17
    assert len(rows_fetched(hub)) == 2 * 15  # mmlu_ru and mmlu_en, the two summaries: one data set each
    assert open_bundle(tmp_path / "out").load("x/y", "parus", "test").source["sha256"] == source["sha256"]


def test_pull_reads_a_locked_revision(hub: Hub, tmp_path: Path) -> None:
    ours = hub.repository("RefalMachine/darumeru")
    old = ours.branches["main"]
    ours.change({"rutie/test.jsonl": None})
    lock = tmp_path / "lock.json"
    lock.write_text(json.dumps({"revisions": {"RefalMachine/darumeru": old}}))
    pull("darumeru-extended", tmp_path / "out", lock)
    used = {repository: commit for repository, commit, _ in hub.fetched()}
    assert used == {"RefalMachine/darumeru": old, "IlyaGusev/gazeta": commits(hub)["IlyaGusev/gazeta"]}
    assert "GET /api/datasets/RefalMachine/darumeru" not in hub.asked
    assert read_lock(tmp_path / "out" / "bundle.json")["RefalMachine/darumeru"] == old


def test_a_bundle_and_a_run_are_locks_too(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text('{"revisions": {"a/b": "1"}}')
    assert read_lock(tmp_path) == {"a/b": "1"}
    run = tmp_path / "run"
    run.mkdir()
    source = {"repository": "a/b", "revision": "1"}
    tasks: dict[str, Any] = {
        "x": {"data": {"test": source, "train": {**source, "conversion": "c", "conversion_revision": "2"}}}
    }
    (run / "header.json").write_text(json.dumps({"tasks": {**tasks, "y": {}}}))
    assert read_lock(run) == {"a/b": "1", "a/b@c": "2"}
    (run / "header.json").write_text(json.dumps({"tasks": {"x": {"data": {"test": {"source": "bundle:mini"}}}}}))
    with pytest.raises(UserError, match="states no revisions of the hub"):
        read_lock(run)
    (run / "header.json").write_text('{"tasks": ["x"]}')
    with pytest.raises(UserError, match="is not the header of a run"):
        read_lock(run)


def test_interrupted_pull_goes_on_and_fetches_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Trouble(r"HEAD .*/(test|prompt|dev)\.jsonl", status=403, after=7)]
    with pytest.raises(DarumeruError, match=r"could not be loaded from the hub \(.*403"):
        pull("darumeru", tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()  # it would mean that the bundle is complete
    assert len(list((tmp_path / "out").glob("*/*.jsonl"))) == 7
    hub.faults = []
    refused = rows_fetched(hub)
    hub.asked.clear()
    pull("darumeru", tmp_path / "out")
    assert len(refused) == 8
    assert len(rows_fetched(hub) & refused) == 1  # the one that was refused
    assert len(rows_fetched(hub) | refused) == 30
    hub.asked.clear()
    pull("darumeru", tmp_path / "out")  # all is there
    assert not rows_fetched(hub)


def test_pull_killed_between_a_file_and_its_manifest_goes_on(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def die_after_two(file: Path, rows: Any) -> None:
        write_jsonl(file, rows)
        written.append(file)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("darumeru.data.pull.write_jsonl", die_after_two)
        with pytest.raises(OSError, match="No space left"):
            pull("darumeru", tmp_path / "out")
    content = json.loads(pull("darumeru", tmp_path / "out").read_text(encoding="utf-8"))
    assert "begun" not in content
    assert written[1].exists()
    assert check_folder(tmp_path / "out", Catalogue()).faults == []


def test_pull_fetches_again_what_has_changed(hub: Hub, tmp_path: Path) -> None:
    pull("darumeru-extended", tmp_path / "out")
    hub.asked.clear()
    spoilt = tmp_path / "out" / "rutie" / "test.jsonl"
    spoilt.write_text("{}\n")  # on disk
    moved = hub.repository("IlyaGusev/gazeta").change({"LICENSE": "new"})  # on the hub
    pull("darumeru-extended", tmp_path / "out")
    assert rows_fetched(hub) == {
        ("IlyaGusev/gazeta", f"data/{split}-00000-of-00001.parquet") for split in ("test", "validation")
    }
    assert read_rows(spoilt) == read_rows(MINI / "rutie" / "test.jsonl")  # out of the hub's cache
    assert read_lock(tmp_path / "out" / "bundle.json")["IlyaGusev/gazeta"] == moved


def test_a_bundle_that_is_being_renewed_is_not_complete(hub: Hub, tmp_path: Path) -> None:
    pull("darumeru-extended", tmp_path / "out")
    moved = hub.repository("RefalMachine/darumeru").change({"LICENSE": "new"})
    hub.faults = [Trouble(r"HEAD .*/(test|prompt|dev)\.jsonl", status=403, after=2)]
    with pytest.raises(DarumeruError, match="403"):
        pull("darumeru-extended", tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()  # two revisions are mixed now
    hub.faults = []
    content = json.loads(pull("darumeru-extended", tmp_path / "out").read_text(encoding="utf-8"))
    used = {s["revision"] for d in content["datasets"].values() for s in d["splits"].values()}
    assert used == {moved, commits(hub)["IlyaGusev/gazeta"]}


def test_two_suites_share_a_bundle_of_one_revision(hub: Hub, tmp_path: Path, catalogue: Catalogue) -> None:
    pull("darumeru", tmp_path / "out")
    ours = hub.repository("RefalMachine/darumeru")
    old, new = ours.branches["main"], ours.change({"LICENSE": "new"})
    with pytest.raises(UserError, match=f"at revision {old}, and the hub is now at {new}"):
        pull("darumeru-extended", tmp_path / "out")
    pull("darumeru-extended", tmp_path / "out", tmp_path / "out" / "bundle.json")
    content = json.loads((tmp_path / "out" / "bundle.json").read_text(encoding="utf-8"))
    assert content["suite"] == "darumeru, darumeru-extended"
    report = check_folder(tmp_path / "out", catalogue)
    assert report.faults == []
    assert len(report.ready("darumeru") + report.ready("darumeru-extended")) == 23


def test_unreachable_hub_is_one_sentence_and_writes_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.url = "http://127.0.0.1:9"  # nothing listens there
    hub.serves(monkeypatch, tmp_path / "home")
    with pytest.raises(DarumeruError, match=r"\(the hub cannot be reached, and .* lacks it\).*--data mini") as caught:
        pull("darumeru", tmp_path / "out")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_pull_never_overwrites_what_it_did_not_write(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "out" / "parus" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("mine\n")
    with pytest.raises(UserError, match=r"parus/test\.jsonl' is there already and no pull has written it"):
        pull("darumeru", tmp_path / "out")
    assert file.read_text() == "mine\n"
    assert not rows_fetched(hub)


def test_pull_faults_of_the_user(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown suite 'daru'"):
        pull("daru", tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        pull("darumeru", tmp_path / "out", tmp_path / "lock.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        pull("darumeru", tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").write_text('{"revisions": {}, "datasets": {"../x": {"splits": {}}}}')
    with pytest.raises(UserError, match="was not written by 'darumeru data pull'"):
        pull("darumeru", tmp_path / "out")


def test_check_sees_a_file_that_changed_after_the_pull(hub: Hub, tmp_path: Path, catalogue: Catalogue) -> None:
    pull("darumeru-extended", tmp_path / "out")
    spoil(tmp_path / "out", "gazeta", "test", 1, set_in("summary", to="Другое."))
    (tmp_path / "out" / "rutie" / "test.jsonl").unlink()
    places = {f.field for f in check_folder(tmp_path / "out", catalogue).faults if f.file == "bundle.json"}
    assert places == {"datasets.gazeta.splits.test", "datasets.rutie.splits.test"}
