"""What the hub refuses is said in one sentence, for models, data sets and corpora alike, and nothing is asked elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from darumeru.data.bundle import HubBundle
from darumeru.errors import DarumeruError
from darumeru.inference.model import open_model
from lep.corpus.read import read_texts
from lep.model.checkpoint import locate

ROOT = Path(__file__).parents[2]


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.example/api"))


def model(_: Path) -> object:
    return open_model("owner/name", revision="v9")


def checkpoint(_: Path) -> object:
    return locate("owner/name", revision="v9")


def revision(_: Path) -> object:
    return HubBundle().revision("owner/name", "v9")


def rows(_: Path) -> object:
    return HubBundle({"owner/name": "v9"}).load("owner/name", None, "test")


def corpus(_: Path) -> object:
    return list(read_texts(["hub:owner/name"]))


ASKING = [model, checkpoint, revision, rows, corpus]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Let all of the hub's clients end with an error."""
    import datasets
    import huggingface_hub

    def set_error(error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        def fail_behind(*_: Any, **__: Any) -> None:  # `datasets` raises errors of its own from the client's
            raise ConnectionError("Couldn't reach 'owner/name' on the Hub") from error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
        monkeypatch.setattr(datasets, "load_dataset", fail_behind)

    return set_error


REFUSALS = [
    (GatedRepoError("403", response=answer(403)), 2, r"is gated: accept its terms .* then log in with 'hf auth login'"),
    (RepositoryNotFoundError("404", response=answer(404)), 2, "there is no such repository; if it is private, log in"),
    (OfflineModeIsEnabled("offline"), 1, "HF_HUB_OFFLINE is set, and the local cache lacks it"),
    (LocalEntryNotFoundError("no"), 1, "the hub cannot be reached, and the local cache lacks it"),
]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(("error", "code", "message"), REFUSALS)
def test_a_refusal_is_one_sentence_wherever_it_is_asked(
    ask: Callable[[Path], object],
    error: Exception,
    code: int,
    message: str,
    refuse: Callable[[Exception], None],
    tmp_path: Path,
) -> None:
    refuse(error)
    with pytest.raises(DarumeruError, match=message) as caught:
        ask(tmp_path)
    assert caught.value.exit_code == code
    assert "'owner/name'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ask", [model, checkpoint, revision])
def test_a_missing_revision_is_named(
    ask: Callable[[Path], object], refuse: Callable[[Exception], None], tmp_path: Path
) -> None:
    refuse(RevisionNotFoundError("404", response=answer(404)))
    with pytest.raises(DarumeruError, match="it has no revision 'v9'") as caught:
        ask(tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("ask", "advice"),
    [
        (model, "Check the name, or give the path of a model folder."),
        (checkpoint, "Check the name, or give the path of a model folder."),
        (rows, "use --data mini"),
        (corpus, "name local files"),
    ],
)
def test_any_other_failure_states_its_first_line_and_what_to_do(
    ask: Callable[[Path], object], advice: str, refuse: Callable[[Exception], None], tmp_path: Path
) -> None:
    refuse(TimeoutError("read timed out\nsecond line"))
    with pytest.raises(DarumeruError) as caught:
        ask(tmp_path)
    assert re.search(
        r"\((TimeoutError: read timed out|ConnectionError: Couldn't reach 'owner/name' on the Hub)\)\. ",
        str(caught.value),
    )
    assert advice in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_stream_that_breaks_off_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*_: Any, **__: Any) -> Any:
        yield {"text": "раз"}
        raise ConnectionError("reset")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    texts = read_texts(["hub:owner/name"])
    assert next(texts) == "раз"
    with pytest.raises(
        DarumeruError, match=r"'owner/name' could not be loaded from the hub \(ConnectionError: reset\)"
    ):
        next(texts)


def test_no_pickles_are_fetched_and_code_only_if_it_is_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot_download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}')
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    open_model("owner/name", trust_remote_code=True)
    assert {"*.py", "*.safetensors", "*.json"} <= set(asked.pop())
    with pytest.raises(DarumeruError, match="brings Python code of its own"):
        open_model("owner/name")
    assert "*.py" not in asked.pop()
    locate("owner/name")
    locate("owner/name", weights=False)
    assert ["*.safetensors" in patterns for patterns in asked] == [True, False]
    assert not {"*", "*.bin", "*.pt", "*.py"} & {pattern for patterns in asked for pattern in patterns}


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "a..b/c", "../a/b"])
def test_a_path_that_does_not_exist_is_not_asked_for(name: str, refuse: Callable[[Exception], None]) -> None:
    refuse(AssertionError("the hub was asked"))
    with pytest.raises(DarumeruError, match="There is no folder") as caught:
        locate(name)
    assert caught.value.exit_code == 2
    if name != "nowhere":
        with pytest.raises(DarumeruError, match="does not exist"):
            open_model(name)


def test_only_the_hub_module_asks_the_hub() -> None:
    asks = re.compile(r"snapshot_download|hf_hub_download|HfApi|load_dataset\(")
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("darumeru", "lep", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        if asks.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["darumeru/hub.py"]
