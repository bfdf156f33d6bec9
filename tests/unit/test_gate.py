"""The gate: policies that are refused, verdicts with their numbers, and the documents that would decide."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm

from darumeru.files import file_sha256
from darumeru.scoring.margin import MeanOfTasks, Part, documents_needed, one_sided
from support.commands import call
from support.synthetic import make_run

POLICY = """
version: 1
non_inferiority: {micro_avg: 0.05, darummlu: 0.08, parus: 0.1}
minimum_score: {micro_avg: 0.3}
maximum_share:
  unfinished: {darusum: 0.05}
  empty: {micro_avg: 0.05}
  truncated: {parus: 0.05}
minimum_symbols_per_token: {darucopy_ru: 2.0}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "old", "old", skill=0.6, seed=1, documents=100)
    make_run(folder / "better", "better", skill=0.75, seed=2, documents=100)
    make_run(folder / "worse", "worse", skill=0.4, seed=3, documents=100)
    make_run(folder / "other", "other", skill=0.6, seed=4, documents=30)
    return folder


def policy(folder: Path, text: str = POLICY) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def decide(
    folder: Path, runs: Path, run: str, text: str = POLICY, code: int = 0, baseline: str = "old"
) -> dict[str, Any]:
    said = call("gate", policy(folder, text), runs / run, "--baseline", runs / baseline, "--json", code=code)
    found: dict[str, Any] = json.loads(said)
    return found


def test_a_better_run_goes_and_a_worse_one_does_not(runs: Path, tmp_path: Path) -> None:
    better = decide(tmp_path, runs, "better")
    assert better["verdict"] == "GO"
    assert [rule["verdict"] for rule in better["rules"]] == ["GO"] * 8
    worse = decide(tmp_path, runs, "worse", code=3)
    verdicts = {(rule["kind"], rule["scope"]): rule["verdict"] for rule in worse["rules"]}
    assert worse["verdict"] == "NO-GO"
    assert verdicts["non_inferiority", "micro_avg"] == "NO-GO"
    assert verdicts["empty", "micro_avg"] == "GO", "the answers are whole all the same"


def test_the_numbers_are_those_of_the_records(runs: Path, tmp_path: Path) -> None:
    scores = {n: json.loads((runs / n / "scores.json").read_text())["tasks"] for n in ("old", "better")}
    rules = {(r["kind"], r["scope"]): r for r in decide(tmp_path, runs, "better")["rules"]}

    def mean(run: str, tasks: list[str]) -> float:
        return float(np.mean([scores[run][t]["score"]["value"] for t in tasks]))

    mmlu = ["rummlu", "mmlu_ru", "mmlu_en"]
    difference = rules["non_inferiority", "darummlu"]
    assert difference["value"] == pytest.approx(mean("better", mmlu) - mean("old", mmlu))
    assert difference["limit"] == -0.08
    assert difference["low"] < difference["value"] < difference["high"]
    assert rules["minimum_score", "micro_avg"]["value"] == pytest.approx(mean("better", list(scores["better"])))
    assert rules["symbols_per_token", "darucopy_ru"]["value"] == pytest.approx(2.5 + 0.75)
    assert rules["unfinished", "darusum"]["documents"] == 200


def rewrite(run: Path, file: str, change: Callable[[Any], None]) -> None:
    """Change a file of a record, JSON or JSON lines, and seal the record again."""
    path, lines = run / file, file.endswith(".jsonl")
    text = path.read_text(encoding="utf-8")
    content = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    change(content)
    said = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
    path.write_text(said, encoding="utf-8")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][file] = file_sha256(path)
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_shares_of_answers_are_counted(tmp_path: Path) -> None:
    """40 of 100 summaries hit the limit, 3 are empty: too many of the former, too few documents for the latter."""
    run = make_run(tmp_path / "run", "m", documents=100, tasks=["sum_abstractive", "parus"])

    def spoil(rows: Any) -> None:
        for row in rows[:40]:
            row["requests"][0]["answer"]["finish"] = "length"
        for row in rows[:3]:
            row["requests"][0]["answer"]["text"] = " \n"
        rows[0]["requests"][0]["truncated"] = 7

    rewrite(run, "samples/sum_abstractive.jsonl", spoil)
    text = """
version: 1
maximum_share:
  unfinished: {sum_abstractive: 0.1, parus: 0.1}
  empty: {sum_abstractive: 0.05}
  truncated: {sum_abstractive: 0.2}
"""
    found = json.loads(call("gate", policy(tmp_path, text), run, "--json", code=3))
    unfinished, choices, empty, truncated = found["rules"]
    assert (unfinished["value"], unfinished["verdict"]) == (0.4, "NO-GO")
    assert (empty["value"], empty["verdict"]) == (0.03, "INCONCLUSIVE")
    assert (truncated["value"], truncated["verdict"]) == (0.01, "GO")
    assert choices["verdict"] == "INCONCLUSIVE"
    assert "choose among labels" in choices["reason"]


def test_an_undecided_rule_says_what_would_decide(runs: Path, tmp_path: Path) -> None:
    text = "version: 1\nnon_inferiority: {micro_avg: 0.05}\nminimum_score: {micro_avg: 0.0}\n"
    decide(tmp_path, runs, "better", text)
    text = "version: 1\nnon_inferiority: {rummlu: 0.15}\n"
    found = decide(tmp_path, runs, "better", text.replace("0.15", "0.0"), code=0)
    assert found["rules"][0]["verdict"] == "GO", "margin 0: better"
    other = make_run(tmp_path / "twin", "twin", skill=0.6, seed=9, documents=100)
    said = call("gate", policy(tmp_path, text.replace("0.15", "0.01")), other, "--baseline", runs / "old", code=4)
    assert "INCONCLUSIVE" in said
    assert re.search(
        r"[\d,]+ more documents would show (GO|NO-GO); the benchmark has no more\.", " ".join(said.split())
    )


def test_a_limited_run_is_told_the_limit_that_would_decide(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        run = make_run(tmp_path / name, name, skill=0.6, seed=seed, documents=60, tasks=["rummlu"])
        rewrite(run, "header.json", lambda header: header["tasks"]["rummlu"].update(of=100_000))
    text = "version: 1\nnon_inferiority: {rummlu: 0.1}\n"
    said = call("gate", policy(tmp_path, text), tmp_path / "b", "--baseline", tmp_path / "a", "--json", code=4)
    needed = json.loads(said)["rules"][0]["needed"]
    assert 60 < needed["limit"] < 100_000
    assert needed["limit"] == pytest.approx(needed["documents"], abs=1)


def test_lower_is_better_where_the_record_says_so(tmp_path: Path) -> None:
    for name, skill in (("old", 0.6), ("lower", 0.4)):
        run = make_run(tmp_path / name, name, skill=skill, documents=100, tasks=["rummlu"])
        rewrite(run, "scores.json", lambda scores: scores["tasks"]["rummlu"].update(higher_is_better=False))
    file = policy(tmp_path, "version: 1\nnon_inferiority: {rummlu: 0.05}")
    call("gate", file, tmp_path / "lower", "--baseline", tmp_path / "old")
    said = call("gate", file, tmp_path / "old", "--baseline", tmp_path / "lower", "--json", code=3)
    assert json.loads(said)["rules"][0]["limit"] == 0.05
    said = call("gate", policy(tmp_path, "version: 1\nminimum_score: {rummlu: 0.1}"), tmp_path / "old", code=2)
    assert "'rummlu' is better when lower, so a minimum has no meaning" in said


def test_what_the_run_was_not_asked_cannot_be_certified(runs: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "part", "part", documents=100, tasks=["rummlu"])
    text = "version: 1\nminimum_score: {micro_avg: 0.1, rummlu: 0.05}\n"
    said = call("gate", policy(tmp_path, text), run, code=4)
    assert "cannot be tested: the run was not asked mmlu_ru" in " ".join(said.split())


def test_summaries_are_written(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call("gate", policy(tmp_path), runs / "better", "--baseline", runs / "old", "--output", out, "--markdown")
    assert said == (out / "gate.md").read_text(encoding="utf-8")
    assert said.startswith("## ✅ GO: better")
    assert json.loads((out / "gate.json").read_text())["verdict"] == "GO"


def test_the_template_is_a_policy(runs: Path, tmp_path: Path) -> None:
    file = policy(tmp_path, call("gate", "--template"))
    call("gate", file, runs / "better", "--baseline", runs / "old")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nnon_inferiority: {micro_awg: 0.01}", "policy (non_inferiority) 'micro_awg'. Did you mean 'micro_avg'?"),
        ("version: 1\nnon_inferiority: {micro_avg: -0.01}", "micro_avg: -0.01 is not possible. A margin is a difference"),
        ("version: 1\nnon_inferiority: {micro_avg: 1.5}", "1.5 is not possible. A margin"),
        ("version: 1\nnon_inferiority: {micro_avg: .nan}", "nan is not possible. A margin"),
        ("version: 1\nnon_inferiority: {micro_avg: 'a'}", "'a' is not possible. A margin"),
        ("version: 1\nmaximum_share: {empty: {micro_avg: 0}}", "0 is not possible. A maximum is a share above 0 and below 1"),
        ("version: 1\nmaximum_share: {emty: {micro_avg: 0.1}}", "Did you mean 'empty'?"),
        ("version: 1\nminimum_score: {micro_avg: 35}", "35 is not possible. Its scores lie between 0 and 1."),
        ("version: 1\nminimum_symbols_per_token: {parus: 2}", "parus does not measure symbols per token. These do: cp_sent_en"),
        ("version: 2\nminimum_score: {micro_avg: 0.3}", "version: 2 is not possible."),
        ("minimum_score: {micro_avg: 0.3}", "has no 'version'"),
        ("version: 1\nmargins: {micro_avg: 0.3}", "Unknown key in policy"),
        ("version: 1\nnon_inferiority:\n", "has no rule"),
        ("- 1", "must be a mapping"),
        ("version: [", "is not valid YAML"),
    ],
)  # fmt: skip
def test_policies_without_meaning_are_refused(text: str, said: str, runs: Path, tmp_path: Path) -> None:
    margin = ("--baseline", runs / "old") if "non_inferiority" in text else ()
    assert said in call("gate", policy(tmp_path, text), runs / "better", *margin, code=2)


def test_baselines_that_cannot_be_paired_are_refused(runs: Path, tmp_path: Path) -> None:
    file = policy(tmp_path)
    assert "answered other documents in 'rummlu' (100 and 30)" in call(
        "gate", file, runs / "better", "--baseline", runs / "other", code=2
    )
    assert "give --baseline RUN" in call("gate", file, runs / "better", code=2)
    assert "is the run itself" in call("gate", file, runs / "old", "--baseline", runs / "old", code=2)
    shots = make_run(tmp_path / "shots", "shots", skill=0.7, seed=5, documents=100, num_fewshot=5)
    assert "the number of examples differs (5 and 0)" in call("gate", file, shots, "--baseline", runs / "old", code=2)
    alone = policy(tmp_path, "version: 1\nminimum_score: {micro_avg: 0.3}")
    assert "leave it out" in call("gate", alone, runs / "better", "--baseline", runs / "old", code=2)
    assert "does not exist" in call("gate", tmp_path / "none.yaml", runs / "better", code=2).replace(
        "No such file or directory", "does not exist"
    )
    assert "Give a policy and a run" in call("gate", code=2)


# -- statistics -------------------------------------------------------------------------------------------------------


def test_pairs_are_tested_as_tango_does() -> None:
    """Tango (1998): 44 patients, one of whom the new treatment alone failed, margin 0.1: Z = 1.709, p = 0.044."""
    error = np.sqrt(1 / 44 - 1 / 44**2) / np.sqrt(44)
    estimate = MeanOfTasks(-1 / 44, float(error), (Part(float(error), 44, 44, 44, True, (0, 1)),), 43)
    test = one_sided(estimate, -0.1)
    assert norm.isf(0.044) == pytest.approx(1.709, abs=0.005)
    assert test.above == pytest.approx(0.0474, abs=0.0005), "t with 43 degrees of freedom at 1.709"


@pytest.mark.parametrize("n", [28, 100, 500])
def test_equal_answers_do_not_prove_equality(n: int) -> None:
    """No document of n differs: exactly, a loss of 1 % is ruled out at 2.5 % from n = 367 on (0.99^367 = 0.025)."""
    estimate = MeanOfTasks(0.0, 0.0, (Part(0.0, n, n, n, True, (0, 0)),), n - 1)
    assert (one_sided(estimate, -0.01).above < 0.025) == (binom.pmf(0, n, 0.01) < 0.025)


def test_needed_documents_have_the_power_that_is_asked() -> None:
    """A mean of two tasks: with the limit that is said, the simulated test finds the gap four times in five."""
    spread, n, gap = 0.4, 100, 0.03
    error = spread / np.sqrt(n)
    parts = tuple(Part(error, n, 10_000, n, False) for _ in range(2))
    estimate = MeanOfTasks(gap, float(np.hypot(error, error) / 2), parts, 198)
    needed = documents_needed(estimate, 0.0, 0.025, 0.8)
    assert needed.limit is not None
    rng = np.random.default_rng(3)
    means = rng.normal(gap, spread / np.sqrt(2 * needed.limit), 20_000)
    found = np.mean(means / (spread / np.sqrt(2 * needed.limit)) > norm.ppf(0.975))
    assert found == pytest.approx(0.8, abs=0.01)
    assert needed.documents == pytest.approx(2 * needed.limit, abs=2)
    none = documents_needed(MeanOfTasks(0.0, 0.01, parts, 198), 0.0, 0.025, 0.8)
    assert (none.documents, none.limit) == (None, None)
