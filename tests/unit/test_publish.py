"""Publishing: a card's section and nothing else of the card, records as pull requests, boards as folders and branches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from darumeru.errors import UserError
from darumeru.publish.card import BEGIN, END, with_section
from darumeru.record.run import load_run
from support.commands import call
from support.hub import Hub, Repository, Trouble, serve
from support.synthetic import NASTY, edited, make_run

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "leaderboards" / "runs" / "smollm2-135m-instruct-mini"
FRONT = "---\nlicense: apache-2.0  # a remark\ntags: [ru]\n---\n"


# -- the card -----------------------------------------------------------------------------------------------------------

CARDS = [
    b"",
    b"# Model",
    FRONT.encode() + b"# Model\n\nText. \n",
    (FRONT + "# Модель\n\tтекст\n").replace("\n", "\r\n").encode(),
    b"\xef\xbb\xbf" + FRONT.encode() + "текст с \u2028 и \x0c".encode(),
]


@pytest.mark.parametrize("card", CARDS)
def test_all_but_the_section_stays_byte_by_byte(card: bytes) -> None:
    first = with_section(card, "one\ntwo")
    assert first.startswith(card)
    assert (b"\r\n" in first) == (b"\r\n" in card)
    # Behind the section people write on; then it is replaced where it is.
    after = first + "\n## Дальше\n".encode()
    second = with_section(after, "three")
    begin, end = second.index(BEGIN.encode()), second.index(END.encode())
    assert second[:begin] == after[: after.index(BEGIN.encode())]
    assert second[end:] == after[after.index(END.encode()) :]
    assert b"three" in second
    assert b"two" not in second
    assert with_section(second, "three") == second


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"---\na: [1\n---\n# M\n", r"not valid YAML \(line 3: .*\)\. Repair"),
        (b"---\n- a\n---\n", "no mapping of keys"),
        (b"---\na: 1\n# M\n", "do not end so"),
        (b"# \xff\n", "not UTF-8 .byte 2"),
        (BEGIN.encode(), "has 1 of the marker .* and 0 of"),
        (f"{END}\n{BEGIN}".encode(), "one pair is needed"),
        (f"{BEGIN}{END}{BEGIN}{END}".encode(), "has 2 of the marker"),
    ],
)
def test_a_card_that_cannot_be_changed_is_not(card: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        with_section(card, "one")
    file = tmp_path / "README.md"
    file.write_bytes(card)
    assert re.search(message, " ".join(call("publish", "run", RECORD, "--card", file, code=2).split()))
    assert file.read_bytes() == card


def test_a_card_here(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"{FRONT}# Model\n")
    shown = call("publish", "run", RECORD, "--card", card, "--dry-run")
    assert card.read_text() == f"{FRONT}# Model\n"
    scores = load_run(RECORD).scores
    line = f"| parus | {scores.tasks['parus'].score.value:.3f} |"
    assert f"+{line}" in shown
    assert not re.search(r"^-[^-]", shown, re.M)
    call("publish", "run", RECORD, "--card", card)
    assert line in card.read_text()
    assert "(as it was)" in call("publish", "run", RECORD, "--card", card)
    assert "There is no card" in call("publish", "run", RECORD, "--card", tmp_path / "none.md", code=2)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", f"{NASTY}{END}", tasks=["parus"])
    card = tmp_path / "README.md"
    card.touch()
    call("publish", "run", run, "--card", card)
    call("publish", "run", run, "--card", card)  # the name did not become a marker
    assert not re.search(r"(?<!\\)<(script|img)", card.read_text())


def on_the_hub(copy: Path) -> Path:
    """The record as if its tasks had read a data set of the hub."""
    shutil.copytree(RECORD, copy)
    source = {"source": "hub:owner/rows", "repository": "owner/rows", "revision": "5" * 40}
    return edited(
        copy, "header.json", lambda h: [next(iter(t["data"].values())).update(source) for t in h["tasks"].values()]
    )


def test_a_card_is_of_one_model(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.touch()
    other = ROOT / "leaderboards" / "runs" / "gemma-3-270m-mini-part"
    said = " ".join(call("publish", "run", RECORD, other, "--card", card, "--dry-run", code=2).split())
    assert "A card is of one model" in said
    assert "'SmolLM2-135M-Instruct'" in said
    assert "'gemma'" in said
    # Behind a server no weights are known, and the name decides.
    served = [
        make_run(tmp_path / n, m, tasks=["parus"], seed=s) for n, m, s in (("a", "x", 1), ("b", "x", 2), ("c", "y", 3))
    ]
    for run in served:
        edited(run, "header.json", lambda h: h["model"].update(weights_sha256=None))
    call("publish", "run", served[0], served[1], "--card", card)
    assert "A card is of one model" in call("publish", "run", served[0], served[2], "--card", card, code=2)


def test_a_card_says_how_its_intervals_were_made(tmp_path: Path) -> None:
    """Those of early records are percentiles of the bootstrap; the others are not."""
    card = tmp_path / "README.md"
    card.touch()
    call("publish", "run", RECORD, "--card", card)
    assert "Wilson's for shares of right answers" in card.read_text()
    assert "by the bootstrap over documents" not in card.read_text()
    old = edited(
        Path(shutil.copytree(RECORD, tmp_path / "old")),
        "scores.json",
        lambda s: [task["score"].pop("method", None) for task in s["tasks"].values()],
    )
    call("publish", "run", old, "--card", card)
    assert "percentiles of a bootstrap over independent units" in card.read_text()


# -- the hub ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with a model and an empty data set, which the clients of this process talk to, signed in."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with serve() as served:
        served.serves(monkeypatch, tmp_path / "home")
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", served.url)
        served.repository("owner/name", "models").commit({"README.md": f"{FRONT}# Model\n", "config.json": "{}"})
        served.repository("owner/records").commit({".gitattributes": ""})
        yield served


def asked(repository: Repository) -> dict[str, bytes]:
    """The files of the one pull request that was opened."""
    (branch,) = repository.titles
    return repository.commits[repository.branches[branch]]


def test_scores_go_into_the_card_and_records_into_a_data_set_each_by_a_pull_request(hub: Hub, tmp_path: Path) -> None:
    record = on_the_hub(tmp_path / "mine")
    edited(
        record, "header.json", lambda h: h["where"].update(model_path="/home/me/secret/model", data="/home/me/bundle")
    )
    shown = call("publish", "run", record, "--to", "owner/name", "--records", "owner/records", "--dry-run")
    assert "+## Evaluation with Darumeru" in shown
    assert re.search(r"new file: mine/samples/parus.jsonl \([\d,]+ bytes\)", shown)
    model, records = hub.repository("owner/name", "models"), hub.repository("owner/records")
    assert not model.titles
    assert not records.titles
    before = dict(model.branches)
    said = call("publish", "run", record, "--to", "owner/name", "--records", "owner/records")
    assert f"owner/name: {hub.url}/owner/name/discussions/1" in said
    files = asked(model)
    assert set(files) == {"README.md", "config.json", ".eval_results/darumeru.yaml"}
    entries = {e.task_id: e for e in parse_eval_result_entries(yaml.safe_load(files[".eval_results/darumeru.yaml"]))}
    assert entries["parus"].value == pytest.approx(load_run(RECORD).scores.tasks["parus"].score.value, abs=1e-6)
    card = files["README.md"].decode()
    assert card.startswith(f"{FRONT}# Model\n")
    assert f"{hub.url}/datasets/owner/records" in card
    assert {b: model.branches[b] for b in before} == before  # the main branch is its owner's
    # What was published is a record like any other, without the paths of this machine.
    for path, content in asked(records).items():
        (tmp_path / "back" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "back" / path).write_bytes(content)
    back = load_run(tmp_path / "back" / "mine")
    back.verify()
    assert back.header.id == load_run(RECORD).header.id
    assert back.scores == load_run(RECORD).scores
    assert list(back.samples("parus")) == list(load_run(RECORD).samples("parus"))
    assert not any(b"/home/me" in content for content in asked(records).values())


def test_what_is_there_already_is_not_asked_again(hub: Hub) -> None:
    call("publish", "run", RECORD, "--to", "owner/name", "--records", "owner/records", "--no-samples")
    model, records = hub.repository("owner/name", "models"), hub.repository("owner/records")
    assert {path.rpartition("/")[2] for path in asked(records)} == {".gitattributes", "header.json", "scores.json"}
    for repository in (model, records):
        repository.branches["main"] = repository.branches["refs/pr/1"]  # merged
    said = call("publish", "run", RECORD, "--to", "owner/name", "--records", "owner/records", "--no-samples")
    assert said.count("nothing to change") == 2
    assert (len(model.titles), len(records.titles)) == (1, 1)


def test_scores_on_other_data_go_into_the_card_and_not_into_the_hub_s_table(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    call("publish", "run", RECORD, "--to", "owner/name")
    files = asked(hub.repository("owner/name", "models"))
    assert not [path for path in files if path.startswith(".eval_results")]
    assert "data: mini" in files["README.md"].decode()
    assert "the hub's table does not" in " ".join(caplog.messages)


def test_a_repository_without_a_card_gets_one(hub: Hub) -> None:
    hub.repository("owner/name", "models").commit({"config.json": "{}"})
    call("publish", "run", RECORD, "--to", "owner/name")
    assert asked(hub.repository("owner/name", "models"))["README.md"].startswith(BEGIN.encode())


@pytest.mark.parametrize(
    ("trouble", "message", "code"),
    [
        ({"pattern": "POST .*/commit/", "status": 403}, "lets this user open no pull request .403.*hf auth login", 2),
        ({"pattern": "POST .*/preupload/", "status": 401}, "lets this user open no pull request .401", 2),
        ({"pattern": "POST .*/commit/", "status": 412}, "was changed meanwhile .412.*same command again", 1),
        ({"pattern": "POST .*/commit/", "status": 422}, "does not take the files", 2),
        ({"pattern": "GET .*/owner/name$", "status": 404, "headers": {"X-Error-Code": "RepoNotFound"}},
         "there is no such repository", 2),
        ({"pattern": "", "html": True}, "not the hub|cannot be reached", 1),
    ],
)  # fmt: skip
def test_a_hub_that_refuses_is_one_sentence(hub: Hub, trouble: dict[str, object], message: str, code: int) -> None:
    hub.faults = [Trouble(**trouble)]  # type: ignore[arg-type]
    said = call("publish", "run", RECORD, "--to", "owner/name", code=code)
    assert re.search(message, " ".join(said.split())), said
    assert len(said.strip().splitlines()) == 1
    assert not hub.repository("owner/name", "models").titles


def test_nothing_is_published_where_a_part_of_it_is_wrong(hub: Hub, tmp_path: Path) -> None:
    hub.repository("owner/name", "models").commit({"README.md": "---\na: [1\n---\n"})
    call("publish", "run", RECORD, "--to", "owner/name", "--records", "owner/records", code=2)
    assert not hub.repository("owner/records").titles
    unfinished = make_run(tmp_path / "u", "m", tasks=["parus"], complete=False)
    assert "is not finished" in call("publish", "run", unfinished, "--records", "owner/records", code=2)
    changed = shutil.copytree(RECORD, tmp_path / "c")
    (changed / "scores.json").write_text("{}")
    assert "is not what the finished run wrote" in call("publish", "run", changed, "--to", "owner/name", code=1)
    assert "no repository of the hub" in call("publish", "run", RECORD, "--to", "name", code=2)
    assert "no repository of the hub" in call("publish", "run", RECORD, "--records", "../x/y", code=2)
    assert "Say where to" in call("publish", "run", RECORD, code=2)


def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.serves(monkeypatch, tmp_path / "home", offline=True)
    assert "HF_HUB_OFFLINE is set" in call("publish", "run", RECORD, "--to", "owner/name", code=1)
    assert hub.asked == []


# -- the board ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", "table.json", "assets/board.js"):
        (folder / name).write_text(name)
    (folder / ".secret").write_text("x")
    return folder


def git(place: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Me")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "me@example.org")
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "code.py").write_text("1\n")
    (folder / ".gitignore").write_text("assets/\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "code")
    (folder / "code.py").write_text("2\n")
    (folder / "new.py").write_text("3\n")
    return folder


FILES = [".github/workflows/pages.yml", ".nojekyll", "assets/board.js", "index.html", "table.json"]


def test_a_branch_holds_the_board_and_the_work_at_hand_is_not_touched(site: Path, repository: Path) -> None:
    before = git(repository, "status", "--porcelain"), git(repository, "log", "--format=%H")
    args = ["publish", "board", site, "--branch", "gh-pages", "--repository", repository]
    assert "index.html" in call(*args, "--dry-run")
    assert git(repository, "branch", "--list", "gh-pages") == ""
    assert f"git -C {repository} push origin gh-pages" in call(*args)
    assert git(repository, "ls-tree", "-r", "--name-only", "gh-pages").splitlines() == FILES
    assert "nothing to change" in call(*args)
    (site / "index.html").write_text("newer")
    (site / "table.json").write_text("{}")
    call(*args)
    assert git(repository, "show", "gh-pages:index.html") == "newer"
    assert git(repository, "rev-list", "--count", "gh-pages") == "2"
    assert (git(repository, "status", "--porcelain"), git(repository, "log", "--format=%H")) == before


def test_the_workflow_is_one(site: Path, tmp_path: Path) -> None:
    call("publish", "board", site, "--output", tmp_path / "out")
    assert (
        sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
        == FILES
    )
    workflow = yaml.safe_load((tmp_path / "out" / FILES[0]).read_text())
    assert workflow[True]["push"] == {"branches": ["gh-pages"]}  # YAML takes `on` for true
    steps = workflow["jobs"]["deploy"]["steps"]
    assert [step["uses"].partition("@")[0] for step in steps] == [
        "actions/checkout", "actions/upload-pages-artifact", "actions/deploy-pages",
    ]  # fmt: skip
    assert workflow["jobs"]["deploy"]["environment"]["url"] == "${{ steps.deployment.outputs.page_url }}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{site}"], "Say where to: --output FOLDER or --branch NAME"),
        (["{code}", "--branch", "gh-pages"], "is no board"),
        (["{site}", "--output", "{code}"], "is not empty"),
        (["{site}", "--branch", "main", "--repository", "{code}"], "'main' is checked out"),
        (["{site}", "--branch", "a..b", "--repository", "{code}"], "'a..b' is no name for a branch"),
        (["{site}", "--branch", "--force", "--repository", "{code}"], "is no name for a branch"),
        (["{site}", "--branch", "gh-pages", "--repository", "{site}"], "is no git repository"),
        (["{site}", "--branch", "gh-pages", "--repository", "{site}/none"], "There is no folder"),
    ],
)
def test_what_cannot_be_put_there(args: list[str], message: str, site: Path, repository: Path) -> None:
    given = [arg.replace("{site}", str(site)).replace("{code}", str(repository)) for arg in args]
    assert re.search(message, " ".join(call("publish", "board", *given, code=2).split()))
    assert sorted(p.name for p in repository.iterdir()) == [".git", ".gitignore", "code.py", "new.py"]
    assert json.dumps(git(repository, "branch", "--format=%(refname:short)")) == '"main"'
