"""Signal, noise, decision accuracy, and the part of a suite that a budget buys."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from darumeru.errors import UserError
from darumeru.signal import choose, measure, read_study
from darumeru.signal.measure import decision_accuracy, step_noise
from darumeru.task.suite import Catalogue, read_suite
from support.commands import call
from support.synthetic import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for i in range(5):
        make_run(folder / f"m{i}", f"m{i}", skill=0.4 + 0.05 * i, seed=i, documents=40)
    return folder


def test_decision_accuracy_counts_pairs() -> None:
    """Of 6 pairs: 4 in order, one tied (half), one reversed; pairs that the suite ties are none."""
    whole = np.array([0.1, 0.2, 0.3, 0.4])
    assert decision_accuracy(np.array([0.1, 0.2, 0.2, 0.15]), whole) == pytest.approx((3 + 0.5 + 0 + 0) / 6)
    assert decision_accuracy(np.array([1.0, 2.0, 3.0, 4.0]), whole) == 1.0
    assert decision_accuracy(np.array([1.0, 2.0]), np.array([0.5, 0.5])) == 0.5
    samples = np.array([[1, 2], [2, 1.0]])
    assert decision_accuracy(samples, np.array([0.1, 0.2])) == 0.5, "right in one sample of two"


def test_noise_between_checkpoints_is_blind_to_a_slow_trend() -> None:
    rng = np.random.default_rng(5)
    scores = np.linspace(0, 0.5, 4000) + rng.normal(0, 0.02, 4000)
    assert step_noise(scores, [list(range(2000)), list(range(2000, 4000))]) == pytest.approx(0.02, rel=0.05)
    assert step_noise(scores, []) is None


def test_the_measures_are_those_of_the_records(runs: Path) -> None:
    found = json.loads(call("signal", runs, "--json"))
    scores = [json.loads((runs / f"m{i}" / "scores.json").read_text())["tasks"] for i in range(5)]
    whole = [np.mean([t["score"]["value"] for t in run.values()]) for run in scores]
    for task in found["tasks"]:
        values = [run[task["task"]]["score"]["value"] for run in scores]
        assert task["signal"] == pytest.approx(max(values) - min(values))
        pairs = [(i, j) for i in range(5) for j in range(i)]
        agree = [1 + np.sign((values[i] - values[j]) * (whole[i] - whole[j])) for i, j in pairs]
        assert task["accuracy"] == pytest.approx(np.mean(agree) / 2)
        assert task["tokens"] == 40 * (
            12 + 3
            if task["task"] in ("multiq", "sum_abstractive", "sum_extractive", "cp_sent_en", "cp_sent_ru")
            else 12
        )
        assert task["step_noise"] is None
    parus = next(t for t in found["tasks"] if t["task"] == "parus")
    share = np.mean([run["parus"]["score"]["value"] for run in scores])
    assert 0 < parus["sampling_noise"] < 1.5 * np.sqrt(share * (1 - share) / 40), (
        "pairs share their documents' hardness"
    )
    assert found["pairs"] == 10
    assert found["told_apart"] >= 5


def test_checkpoints_of_a_training_give_step_noise(tmp_path: Path) -> None:
    for step in range(4):
        make_run(
            tmp_path / f"r{step}",
            "t",
            skill=0.5,
            seed=step,
            tasks=["parus", "rwsd"],
            training={"run": "t", "step": 100 * step},
        )
    summary = measure(read_study([tmp_path]))
    values = [
        json.loads((tmp_path / f"r{s}" / "scores.json").read_text())["tasks"]["parus"]["score"]["value"]
        for s in range(4)
    ]
    assert summary.checkpoints == 4
    assert summary.suite.task == "Mean of 2 of 17 tasks", "no Micro-Avg"
    assert summary.tasks[0].step_noise == pytest.approx(np.sqrt(np.mean(np.diff(values) ** 2) / 2))


def test_a_part_is_chosen_for_a_budget_and_runs_as_a_suite(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call("signal", runs, "--budget", "20%", "--output", out)
    assert "--suite darumeru-selected" in said
    names = {p.name for p in out.iterdir()}
    assert names == {"signal.json", "signal.md", "signal.svg", "signal.png", "darumeru-selected.yaml"}
    found = json.loads((out / "signal.json").read_text())["subset"]
    assert found["chosen"]["tokens"] <= found["budget"] <= 0.2 * found["whole"]
    assert found["chosen"]["accuracy"] > 0.9
    assert len(found["left_out"]) == 5
    suite = Catalogue([out]).suite("darumeru-selected")
    assert set(suite.tasks) == set(found["chosen"]["limits"])
    for task, limit in found["chosen"]["limits"].items():
        assert suite.limit(task, None) == (limit if limit < 40 else None)
        assert suite.limit(task, 3) == 3
    assert suite.only([suite.tasks[0]]).limits == suite.limits, "--tasks keeps the suite's limits"


def test_a_task_of_pure_noise_is_not_chosen(tmp_path: Path) -> None:
    """`rwsd` orders the models at random and the others by skill: half of the budget buys the others."""
    for i, skill in enumerate((0.35, 0.45, 0.55, 0.65, 0.75)):
        make_run(
            tmp_path / f"m{i}", f"m{i}", skill=skill, seed=i, documents=40, tasks=["rwsd", "parus", "multiq", "use"]
        )
        _shuffled(tmp_path / f"m{i}", np.random.default_rng([7, i]))
    subset = choose(read_study([tmp_path]), budget=960)
    assert "rwsd" not in subset.chosen.limits
    assert subset.accuracy >= subset.uniform_accuracy


def test_the_checkpoints_of_a_training_are_left_out_together(tmp_path: Path) -> None:
    """Neighbours look alike, so that one would tell the choice how to order the other."""
    for step in range(3):
        where = {"training": {"run": "t", "step": 100 * step}}
        make_run(tmp_path / f"t{step}", "t", skill=0.4 + 0.02 * step, seed=step, tasks=["rwsd", "parus"], **where)
    for i in range(2):
        make_run(tmp_path / f"m{i}", f"m{i}", skill=0.6 + 0.1 * i, seed=9 + i, tasks=["rwsd", "parus"])
    study = read_study([tmp_path])
    assert len(choose(study, budget=300).left_out) == 3, "the training, and two models"
    alone = read_study([tmp_path / f"t{step}" for step in range(3)])
    assert len(choose(alone, budget=300).left_out) == 3, "one training: each checkpoint"


def _shuffled(run: Path, rng: np.random.Generator) -> None:
    """Make the answers of `rwsd` coin tosses."""
    from darumeru.files import file_sha256

    rows = [json.loads(line) for line in (run / "samples" / "rwsd.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, right in zip(rows, rng.integers(0, 2, len(rows)), strict=True):
        row["score"]["acc"] = int(right)
        row["pred"] = row["gold"] if right else "A" if row["gold"] != "A" else "B"
    (run / "samples" / "rwsd.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    scores = json.loads((run / "scores.json").read_text())
    value = float(np.mean([r["score"]["acc"] for r in rows]))
    scores["tasks"]["rwsd"]["score"]["value"] = scores["tasks"]["rwsd"]["metrics"]["acc"]["value"] = value
    (run / "scores.json").write_text(json.dumps(scores))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"] = {n: file_sha256(run / n) for n in manifest["files"]}
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_what_cannot_be_measured_is_refused(runs: Path, tmp_path: Path) -> None:
    assert "2 finished runs are too few" in call("signal", runs / "m0", runs / "m1", code=2)
    other = make_run(tmp_path / "other", "other", seed=9, documents=21)
    said = call("signal", runs, other, code=2)
    assert "were asked other documents (40 and 21) in 'rummlu'" in said
    for i in range(3):
        make_run(tmp_path / "one" / f"m{i}", f"m{i}", seed=i, tasks=["parus"])
    assert "share 1 of the tasks" in call("signal", tmp_path / "one", code=2)
    for budget in ("0", "-5", "nan", "200%", "many", "99999999"):
        assert f"--budget {budget}: give tokens of one evaluation" in call("signal", runs, f"--budget={budget}", code=2)
    assert "No task fits into a budget of 20 tokens" in call("signal", runs, "--budget", 20, code=2)
    (tmp_path / "file").write_text("")
    assert "is a file" in call("signal", runs, "--output", tmp_path / "file", code=2)


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"parsu": 3}, "Did you mean 'parus'?"), ({"parus": 0}, "parus: 0 is not possible"), ({"parus": "all"}, "'all'")],
)
def test_limits_of_a_suite_are_checked(limits: dict[str, object], said: str) -> None:
    content = yaml.safe_load(yaml.safe_dump({"group": "s", "task": ["parus"], "metadata": {"limits": limits}}))
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        read_suite(content)
