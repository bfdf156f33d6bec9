"""`data check` names what would break a run; `data pull` writes a bundle that runs offline, and goes on after a crash."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.bundle import MINI, FolderBundle, HubBundle, Row, open_bundle, read_lock, read_rows
from darumeru.data.check import Fault
from darumeru.errors import DarumeruError, UserError
from darumeru.files import write_jsonl
from darumeru.task.check import check, check_folder
from darumeru.task.pull import pull
from darumeru.task.suite import Catalogue


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


class FakeHub:
    """Stands in for the hub's two clients; serves the mini bundle as the hub's data sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets
        import huggingface_hub

        self.revisions = {
            "RefalMachine/darumeru": "a" * 40,
            "RussianNLP/rucola": "b" * 40,
            "RussianNLP/rucola@refs/convert/parquet": "e" * 40,
            "dichspace/daru_treeway_eval": "c" * 40,
            "IlyaGusev/gazeta": "d" * 40,
        }
        self.resolved: list[str] = []
        self.fetched: list[tuple[str, str | None, str, str]] = []
        self.fail_at: int | None = None
        self.down: Exception | None = None
        hub = self

        class Info:
            def __init__(self, sha: str) -> None:
                self.sha = sha

        def dataset_info(api: object, repo_id: str, **kwargs: Any) -> Info:
            if hub.down:
                raise hub.down
            hub.resolved.append(repo_id)
            branch = kwargs.get("revision")
            return Info(hub.revisions[f"{repo_id}@{branch}" if branch else repo_id])

        def load_dataset(path: str, name: str | None = None, *, split: str, revision: str) -> list[Row]:
            if hub.down:
                raise hub.down
            if path == "RussianNLP/rucola" and revision != "e" * 40:
                raise RuntimeError("Dataset scripts are no longer supported, but found rucola.py")
            if hub.fail_at is not None and len(hub.fetched) >= hub.fail_at:
                raise ConnectionError("connection reset")
            hub.fetched.append((path, name, split, revision))
            return copy.deepcopy(read_rows(MINI / (name or path.split("/")[1]) / f"{split}.jsonl"))

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(monkeypatch)


def test_pull_writes_a_bundle_that_checks_and_pins(hub: FakeHub, tmp_path: Path, catalogue: Catalogue) -> None:
    manifest = pull(catalogue.suite("darumeru"), tmp_path / "out")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert (content["format"], content["suite"]) == (1, "darumeru")
    assert content["revisions"] == read_lock(manifest) == {k: v for k, v in hub.revisions.items() if "gazeta" not in k}
    assert content["datasets"]["rucola"]["path"] == "RussianNLP/rucola"
    assert content["datasets"]["rucola"]["name"] is None
    assert content["datasets"]["parus"]["name"] == "parus"
    source = content["datasets"]["parus"]["splits"]["test"]
    assert source["revision"] == "a" * 40
    assert source["rows"] == 28
    # The loading script of RuCoLA runs nowhere; that its conversion was read instead is on record.
    rucola = content["datasets"]["rucola"]["splits"]["train"]
    assert (rucola["conversion"], rucola["conversion_revision"]) == ("refs/convert/parquet", "e" * 40)
    assert "conversion" not in source
    assert len(hub.resolved) == 4
    assert read_rows(tmp_path / "out" / "parus" / "test.jsonl") == read_rows(MINI / "parus" / "test.jsonl")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_file()) == ["bundle.json"]
    report = check_folder(tmp_path / "out", catalogue)
    assert report.faults == []
    assert len(report.ready("darumeru")) == 17
    splits = {(path, name, split) for path, name, split, _ in hub.fetched}
    assert len(splits) == len(hub.fetched) == 2 * 15  # mmlu_ru and mmlu_en, the two summaries: one data set each
    assert open_bundle(tmp_path / "out").load("x/y", "parus", "test").source["sha256"] == source["sha256"]


def test_pull_reads_a_locked_revision(hub: FakeHub, tmp_path: Path) -> None:
    lock = tmp_path / "lock.json"
    lock.write_text(json.dumps({"revisions": {"RefalMachine/darumeru": "e" * 40}}))
    pull("darumeru-extended", tmp_path / "out", lock)
    used = {path: revision for path, _, _, revision in hub.fetched}
    assert used == {"RefalMachine/darumeru": "e" * 40, "IlyaGusev/gazeta": "d" * 40}
    assert hub.resolved == ["IlyaGusev/gazeta"]
    assert read_lock(tmp_path / "out" / "bundle.json")["RefalMachine/darumeru"] == "e" * 40


def test_interrupted_pull_goes_on_and_fetches_nothing_twice(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail_at = 7
    with pytest.raises(DarumeruError, match=r"could not be loaded from the hub \(ConnectionError: connection reset\)"):
        pull("darumeru", tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()  # it would mean that the bundle is complete
    before = list(hub.fetched)
    hub.fail_at = None
    pull("darumeru", tmp_path / "out")
    again = hub.fetched[len(before) :]
    assert len(before) == 7
    assert not set(before) & set(again)
    assert len(before) + len(again) == 30
    hub.fetched.clear()
    pull("darumeru", tmp_path / "out")  # all is there
    assert hub.fetched == []


def test_pull_fetches_again_what_has_changed(hub: FakeHub, tmp_path: Path) -> None:
    pull("darumeru-extended", tmp_path / "out")
    hub.fetched.clear()
    (tmp_path / "out" / "rutie" / "test.jsonl").write_text("{}\n")  # on disk
    hub.revisions["IlyaGusev/gazeta"] = "f" * 40  # on the hub
    pull("darumeru-extended", tmp_path / "out")
    assert {(name or path, split) for path, name, split, _ in hub.fetched} == {
        ("rutie", "test"),
        ("IlyaGusev/gazeta", "test"),
        ("IlyaGusev/gazeta", "validation"),
    }
    assert read_lock(tmp_path / "out" / "bundle.json")["IlyaGusev/gazeta"] == "f" * 40


def test_a_bundle_that_is_being_renewed_is_not_complete(hub: FakeHub, tmp_path: Path) -> None:
    pull("darumeru-extended", tmp_path / "out")
    hub.revisions["RefalMachine/darumeru"] = "9" * 40
    hub.fail_at = len(hub.fetched) + 2
    with pytest.raises(DarumeruError, match="connection reset"):
        pull("darumeru-extended", tmp_path / "out")
    assert not (tmp_path / "out" / "bundle.json").exists()  # two revisions are mixed now
    hub.fail_at = None
    content = json.loads(pull("darumeru-extended", tmp_path / "out").read_text(encoding="utf-8"))
    used = {s["revision"] for d in content["datasets"].values() for s in d["splits"].values()}
    assert used == {"9" * 40, "d" * 40}


def test_two_suites_share_a_bundle_of_one_revision(hub: FakeHub, tmp_path: Path, catalogue: Catalogue) -> None:
    pull("darumeru", tmp_path / "out")
    hub.revisions["RefalMachine/darumeru"] = "9" * 40
    with pytest.raises(UserError, match=f"at revision {'a' * 40}, and the hub is now at {'9' * 40}"):
        pull("darumeru-extended", tmp_path / "out")
    pull("darumeru-extended", tmp_path / "out", tmp_path / "out" / "bundle.json")
    content = json.loads((tmp_path / "out" / "bundle.json").read_text(encoding="utf-8"))
    assert content["suite"] == "darumeru, darumeru-extended"
    report = check_folder(tmp_path / "out", catalogue)
    assert report.faults == []
    assert len(report.ready("darumeru") + report.ready("darumeru-extended")) == 23


class _ConnectError(Exception):
    """Like the connection errors of the hub's HTTP client, which are no OSError."""


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), _ConnectError("[Errno -2] Name or service not known"), _ConnectError("")]
)
def test_unreachable_hub_is_one_sentence_and_writes_nothing(hub: FakeHub, tmp_path: Path, error: Exception) -> None:
    hub.down = error
    with pytest.raises(DarumeruError, match=r"could not be loaded from the hub.*--data mini") as caught:
        pull("darumeru", tmp_path / "out")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(DarumeruError, match="could not be loaded from the hub"):
        HubBundle({"RussianNLP/rucola": "b" * 40}).load("RussianNLP/rucola", None, "train")


def test_the_real_client_of_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there

    class Api(huggingface_hub.HfApi):
        def __init__(self) -> None:
            super().__init__(endpoint="http://127.0.0.1:9")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(DarumeruError, match="could not be loaded from the hub"):
        HubBundle().revision("RussianNLP/rucola")


def test_pull_never_overwrites_what_it_did_not_write(hub: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "out" / "parus" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("mine\n")
    with pytest.raises(UserError, match=r"parus/test\.jsonl' is there already and no pull has written it"):
        pull("darumeru", tmp_path / "out")
    assert file.read_text() == "mine\n"
    assert hub.fetched == []


def test_pull_faults_of_the_user(hub: FakeHub, tmp_path: Path) -> None:
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


def test_check_sees_a_file_that_changed_after_the_pull(hub: FakeHub, tmp_path: Path, catalogue: Catalogue) -> None:
    pull("darumeru-extended", tmp_path / "out")
    spoil(tmp_path / "out", "gazeta", "test", 1, set_in("summary", to="Другое."))
    (tmp_path / "out" / "rutie" / "test.jsonl").unlink()
    places = {f.field for f in check_folder(tmp_path / "out", catalogue).faults if f.file == "bundle.json"}
    assert places == {"datasets.gazeta.splits.test", "datasets.rutie.splits.test"}
