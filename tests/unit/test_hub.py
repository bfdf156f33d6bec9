"""What the hub refuses is said in one sentence, for models, data sets and corpora alike, and nothing is asked elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.bundle import HubBundle
from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError
from darumeru.inference.model import open_model
from lep.model.checkpoint import locate
from support.hub import Hub, Trouble, serve
from support.hub_data import card, fill, lines, parquet

ROOT = Path(__file__).parents[2]
ROW = {"text": "раз", "label": 1}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one data set and one model, both called owner/name, which the clients of this process talk to."""
    with serve() as served:
        served.serves(monkeypatch, tmp_path / "home")
        served.repository("owner/name").commit(
            {
                "README.md": card({"ru": ["train", "test"]}),
                "ru/train.jsonl": lines([ROW]),
                "ru/test.jsonl": lines([ROW] * 2),
            }
        )
        served.repository("owner/name", "models").commit(
            {"config.json": "{}", "model.safetensors": "x", "model.bin": "x", "model.py": "x", "model.pt": "x"}
        )
        yield served


def model() -> object:
    return open_model("owner/name", revision="v9")


def checkpoint() -> object:
    return locate("owner/name", revision="v9")


def revision() -> object:
    return HubBundle().revision("owner/name", "v9")


def rows() -> object:
    return HubBundle({"owner/name": "9" * 40}).load("owner/name", "ru", "test")


def corpus() -> object:
    return list(read_texts(["hub:owner/name"]))


ASKING = [model, checkpoint, revision, rows]


def refusal(ask: Callable[[], object]) -> DarumeruError:
    """How a question was refused: in one sentence that names what was asked for."""
    with pytest.raises(DarumeruError) as caught:
        ask()
    assert "'owner/name'" in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("ask", [*ASKING, corpus])
@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("gated, and who asks is signed in", r"is gated: accept its terms .* then log in with 'hf auth login'"),
        ("gated", r"is gated: accept its terms .* then log in with 'hf auth login'"),
        ("gone", "there is no such repository; if it is private, log in"),
    ],
)
def test_a_refusal_is_one_sentence_wherever_it_is_asked(
    hub: Hub, ask: Callable[[], object], trouble: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "signed in" in trouble:
        monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    if trouble.startswith("gated"):
        for repository in hub.repositories.values():
            repository.gated = True
    else:
        hub.repositories.clear()
    error = refusal(ask)
    assert re.search(message, str(error)), str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize("ask", [*ASKING, corpus])
def test_no_network_is_no_fault_of_the_user(
    hub: Hub, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.serves(monkeypatch, tmp_path / "home", offline=True)
    error = refusal(ask)
    assert "HF_HUB_OFFLINE is set, and the local cache lacks it" in str(error)
    assert error.exit_code == 1
    assert hub.asked == []


@pytest.mark.parametrize("ask", ASKING)
def test_a_missing_revision_is_named(hub: Hub, ask: Callable[[], object]) -> None:
    error = refusal(ask)
    assert re.search("it has no revision '(v9|9{40})'", str(error))
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("ask", "advice"),
    [
        (model, "Check the name, or give the path of a model folder."),
        (checkpoint, "Check the name, or give the path of a model folder."),
        (revision, "use --data mini"),
        (rows, "use --data mini"),
    ],
)
def test_any_other_refusal_states_the_answer_and_what_to_do(hub: Hub, ask: Callable[[], object], advice: str) -> None:
    hub.faults = [Trouble("", status=403)]
    error = refusal(ask)
    assert "(the hub answered 403, and the local cache lacks it). " in str(error)
    assert advice in str(error)
    assert error.exit_code == 1


def test_data_sets_are_streamed(hub: Hub) -> None:
    hub.repository("owner/name").change(
        {"README.md": card({"ru": ["train", "test"], "en": ["train"]}), "en/train.jsonl": ""}
    )
    assert list(read_texts(["hub:owner/name:ru", "hub:owner/name:ru:test"])) == ["раз"] * 3


# -- what is read, and at which commit --------------------------------------------------------------------------------


def test_a_busy_hub_is_asked_again_after_the_delay_that_it_names(hub: Hub) -> None:
    hub.faults = [Trouble("GET /api/datasets/owner/name$", status=429, headers={"Retry-After": "1"}, times=2)]
    began = len(hub.asked)
    assert len(HubBundle().load("owner/name", "ru", "test").rows) == 2
    first, second, third = hub.times[began : began + 3]
    assert 1.0 <= second - first < 10
    assert 1.0 <= third - second < 10


@pytest.mark.parametrize(
    ("configuration", "split", "message"),
    [
        ("en", "test", r"\(en, test\) could not .*Unknown configuration 'en'\. Available: ru"),
        ("ru", "tset", r"Unknown split 'tset'\. Did you mean 'test'\? Available: test, train"),
    ],
)
def test_what_the_card_does_not_know(hub: Hub, configuration: str, split: str, message: str) -> None:
    with pytest.raises(DarumeruError, match=message) as caught:
        HubBundle().load("owner/name", configuration, split)
    assert caught.value.exit_code == 2


DECLARED = "dataset_info:\n- config_name: ru\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype: int64\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "more": 1}], "its rows are not as its card says: more not in it"),
        ([{"text": "раз", "label": "два"}], "its files cannot be read.*два"),
        ('{"text": "раз", "label": 1}\n{"text": "д', "its files cannot be read, they may be cut"),
        ("<!DOCTYPE html>", "its files cannot be read, they may be cut"),
    ],
)
def test_rows_that_are_not_what_the_card_says(hub: Hub, rows: Any, message: str) -> None:
    content = rows if isinstance(rows, str) else lines(rows)
    hub.repository("owner/name").change({"README.md": card({"ru": ["test"]}, DECLARED), "ru/test.jsonl": content})
    error = refusal(lambda: HubBundle().load("owner/name", "ru", "test"))
    assert re.search(message, str(error)), str(error)
    assert error.exit_code == 1
    hub.repository("owner/name").change({"ru/test.jsonl": lines([ROW])})
    assert HubBundle().load("owner/name", "ru", "test").rows == [ROW]  # the next start, of a hub that was put in order


@pytest.mark.parametrize("file", ["mine_test.jsonl", "data/test-00000-of-00001.jsonl", "test/1.jsonl"])
def test_a_card_that_names_no_files(hub: Hub, file: str) -> None:
    hub.repository("owner/name").commit(
        {"README.md": "# Mine", "mine_train.jsonl": lines([ROW]), file: lines([ROW] * 3)}
    )
    assert HubBundle().load("owner/name", None, "test").rows == [ROW] * 3
    with pytest.raises(DarumeruError, match="it has no configuration 'ru': its card names none"):
        HubBundle().load("owner/name", "ru", "test")
    assert "Unknown split" in str(refusal(lambda: HubBundle().load("owner/name", None, "dev")))


def test_a_web_page_in_place_of_the_hub(hub: Hub) -> None:
    hub.faults = [Trouble("", html=True)]
    for ask in (lambda: HubBundle().revision("owner/name"), rows):
        assert "what answered is not the hub: a proxy or a login page" in str(refusal(ask))


@pytest.mark.parametrize("trouble", [{"cut": True}, {"seconds": 4.0}, {"status": 429, "headers": {"Retry-After": "1"}}])
def test_an_answer_that_is_cut_or_late_is_asked_for_again(hub: Hub, trouble: dict[str, Any]) -> None:
    hub.faults = [Trouble("GET .*/ru/test.jsonl", times=1, **trouble)]
    assert HubBundle().load("owner/name", "ru", "test").rows == [ROW] * 2


def test_a_card_cannot_name_files_outside_nor_settings_of_functions(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    head = "---\nconfigs:\n- config_name: ru\n  data_files:\n  - split: test\n    path: "
    for path in ("../../../../../secret.jsonl", str(tmp_path / "secret.jsonl")):
        hub.repository("owner/name").change({"README.md": f"{head}{path}\n---\n"})
        assert "which is not inside it" in str(refusal(lambda: HubBundle().load("owner/name", "ru", "test")))
    hub.repository("owner/name").change(
        {"README.md": f"{head}ru/test.jsonl\n  cache_dir: {tmp_path / 'elsewhere'}\n---\n"}
    )
    assert len(HubBundle().load("owner/name", "ru", "test").rows) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_a_locked_revision_is_read_whatever_the_cache_holds(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client's own way without a network, the newest copy that it has, would give rows of another revision."""
    repository = hub.repository("owner/name")
    old = repository.branches["main"]
    new = repository.change({"ru/test.jsonl": lines([{"text": "новое", "label": 0}])})
    assert len(HubBundle({"owner/name": old}).load("owner/name", "ru", "test").rows) == 2
    assert len(HubBundle().load("owner/name", "ru", "test").rows) == 1
    hub.serves(monkeypatch, tmp_path / "home", offline=True)
    assert len(HubBundle({"owner/name": old}).load("owner/name", "ru", "test").rows) == 2
    found = HubBundle().load("owner/name", "ru", "test")
    assert (found.source["revision"], found.rows[0]["text"]) == (new, "новое")
    hub.url = "http://127.0.0.1:9"  # nothing listens there, and nobody said so
    hub.serves(monkeypatch, tmp_path / "home")
    assert HubBundle().load("owner/name", "ru", "test").source == found.source


def test_a_loading_script_is_not_run_and_its_conversion_is_pinned(hub: Hub) -> None:
    fill(hub)
    rucola = hub.repository("RussianNLP/rucola")
    first = HubBundle().load("RussianNLP/rucola", None, "validation").source
    again = HubBundle().load("RussianNLP/rucola", None, "validation").source  # with a cache that holds the conversion
    assert first == again
    assert first["conversion_revision"] == rucola.branches["refs/convert/parquet"]
    rucola.change(
        {"default/validation/0000.parquet": parquet([{"sentence": "Да.", "label": 1}])}, "refs/convert/parquet"
    )
    lock = {
        "RussianNLP/rucola": first["revision"],
        "RussianNLP/rucola@refs/convert/parquet": first["conversion_revision"],
    }
    assert HubBundle(lock).load("RussianNLP/rucola", None, "validation").source == first
    moved = HubBundle().load("RussianNLP/rucola", None, "validation").source
    assert (moved["rows"], moved["revision"]) == (1, first["revision"])
    rucola.change({"other/validation/0000.parquet": parquet([ROW])}, "refs/convert/parquet")
    with pytest.raises(DarumeruError, match="several configurations, one must be named: default, other"):
        HubBundle().load("RussianNLP/rucola", None, "validation")
    del rucola.branches["refs/convert/parquet"]
    with pytest.raises(DarumeruError, match="it has no revision 'refs/convert/parquet'"):
        HubBundle().load("RussianNLP/rucola", None, "validation")


def test_no_pickles_are_fetched_and_code_only_if_it_is_trusted(hub: Hub) -> None:
    weights = (2).to_bytes(8, "little") + b"{}"
    own = '{"auto_map": {"AutoModelForCausalLM": "model.Own"}}'
    hub.repository("owner/name", "models").change({"config.json": own, "model.safetensors": weights})
    held = [{path.name for path in locate("owner/name", weights=weights).iterdir()} for weights in (False, True)]
    assert held == [{"config.json"}, {"config.json", "model.safetensors"}]
    with pytest.raises(DarumeruError, match="brings Python code of its own"):
        open_model("owner/name")
    assert not list(locate("owner/name").glob("*.py"))
    open_model("owner/name", trust_remote_code=True)
    assert {path.name for path in locate("owner/name").iterdir()} == {"config.json", "model.safetensors", "model.py"}


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "a..b/c", "../a/b"])
def test_a_path_that_does_not_exist_is_not_asked_for(name: str, hub: Hub) -> None:
    with pytest.raises(DarumeruError, match="There is no folder") as caught:
        locate(name)
    assert caught.value.exit_code == 2
    if name != "nowhere":
        with pytest.raises(DarumeruError, match="does not exist"):
            open_model(name)
    assert hub.asked == []


def test_only_the_hub_module_asks_the_hub() -> None:
    asks = re.compile(r"snapshot_download|hf_hub_download|HfApi|load_dataset\(")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("darumeru", "lep", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if asks.search(path.read_text(encoding="utf-8"))
    ]
    assert sorted(found) == ["darumeru/hub/changes.py", "darumeru/hub/data.py", "darumeru/hub/models.py"]
