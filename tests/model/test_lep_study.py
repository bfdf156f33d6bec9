"""A study from its file to its report: shared stages, resuming, failures, budget, halving, what is refused in the plan."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from darumeru.errors import DarumeruError, UserError
from lep import cli
from lep.study import plan_study, read_grid, run_study
from lep.study.steps import steps_of
from lep.study.workers import open_workers
from support.pipeline import texts, words
from support.study import GRID, make_inputs, write_grid

pytestmark = pytest.mark.xdist_group("study")  # one study serves most of them

AXES = {"vocab.extend.add": [0, 40], "init.strategy": ["mean", "random"], "tokens": [256], "seed": [0, 1]}
LENGTHS = {"vocab.extend.add": [40], "init.strategy": ["mean", "random", "weighted"], "tokens": [128, 256]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and texts, in the folder of a grid."""
    return make_inputs(tmp_path_factory.mktemp("study")).parent


def grid(inputs: Path, folder: Path, *changes: str, **values: Any) -> Any:
    """A grid in a folder of its own, beside the same base and texts."""
    for name in ("base", "ru.jsonl", "held-ru.jsonl", "held-en.jsonl"):
        if not (folder / name).exists():
            (folder / name).symlink_to(inputs / name)
    return read_grid(write_grid(folder, **{"axes": AXES, **values}), changes)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def study(inputs: Path, tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Path:
    """A study that was run."""
    folder = tmp_path_factory.mktemp("whole")
    page = run_study(grid(inputs, folder), folder / "out", say=said.append)
    assert page == folder / "out" / "report" / "index.html"
    return folder / "out"


def table(output: Path) -> list[dict[str, str]]:
    """The cells as the CSV has them, without what a clock measured."""
    rows = list(csv.DictReader((output / "report" / "cells.csv").open()))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def made(said: list[str], stage: str) -> list[str]:
    return [line for line in said if line.startswith(f"{stage}-")]


# -- the whole ----------------------------------------------------------------------------------------------------------


def test_what_cells_share_is_made_once(study: Path, said: list[str]) -> None:
    counts = {stage: len(made(said, stage)) for stage in ("original", "vocab", "init", "pretrain", "measure")}
    # Six cells: two controls, and two initialisations with two seeds each.
    assert counts == {"original": 1, "vocab": 1, "init": 3, "pretrain": 6, "measure": 6}
    report = json.loads((study / "report" / "study.json").read_text())
    assert {s["stage"]: (s["distinct"], s["times"]) for s in report["stages"]} == {k: (n, n) for k, n in counts.items()}


def test_the_tables_hold_what_was_measured(study: Path) -> None:
    rows, small = {row["cell"]: row for row in table(study)}, read_grid(study.parent / "grid.yaml")
    assert rows.keys() == {cell.id for cell in small.cells}
    for cell in small.cells:
        row, content = rows[cell.id], json.loads(steps_of(small, cell, study, {})["measure"].output.read_text())
        text = content["texts"]["ru"]
        assert float(row["end"]) == pytest.approx(sum(text["nats"]) / math.log(2) / sum(text["bytes"]), rel=1e-5)
        assert float(row["start"]) == pytest.approx(content["training"]["curve"][0]["bits"]["ru"], rel=1e-5)
        assert float(row["copied"]) == pytest.approx(sum(content["copied"]) / 2, rel=1e-5)
        assert row["state"] == "done"
        assert int(row["new tokens in vocabulary"]) == int(row["new tokens"])
        if cell.control:
            assert row["initialisation"] == "–"
            # Before its training the control is the original.
            assert float(row["start"]) == pytest.approx(float(row["original"]), rel=1e-3)
    symbols = {row["new tokens"]: float(row["symbols per token"]) for row in rows.values()}
    assert symbols["40"] > symbols["0"]


def test_a_held_out_text_is_measured_as_bits_per_byte_are_everywhere(study: Path) -> None:
    """In float32, the last point of the curve is what the finished model has."""
    for file in (study / "stages").glob("measure-*/measure.json"):
        content = json.loads(file.read_text())
        for name, text in content["texts"].items():
            bits = sum(text["nats"]) / math.log(2) / sum(text["bytes"])
            assert content["training"]["curve"][-1]["bits"][name] == pytest.approx(bits, rel=1e-3)
        assert len(content["training"]["curve"]) >= 3


def test_the_report_says_it_in_all_forms_and_no_name_is_markup(study: Path) -> None:
    folder = study / "report"
    page, markdown = (folder / "index.html").read_text(), (folder / "report.md").read_text()
    for heading in (
        "Recommendation",
        "Configurations",
        "Main effects and interactions",
        "Cost of a gain",
        "Beside the paper",
    ):
        assert heading in page
        assert f"## {heading}" in markdown
    assert "tiny &lt;b&gt;grid&lt;/b&gt;" in page
    assert "<b>grid" not in page
    assert str(study.parent) not in page + markdown + (folder / "study.json").read_text()
    for name in ("fertility", "bits", "copied-symbols", "start-end"):
        assert (folder / f"{name}.svg").read_text().startswith("<svg")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'src="{name}.svg"' in page
    report = json.loads((folder / "study.json").read_text())
    assert {f["verdict"] for f in report["findings"]} <= {"agrees", "disagrees", "cannot tell"}
    # Two cells a configuration: the spread of seeds is known, with a degree of freedom each.
    assert report["spread"]["df"] == 3
    curves = list(csv.DictReader((folder / "curves.csv").open()))
    assert {row["text"] for row in curves} == {"ru", "en"}


def test_models_are_gone_once_measured_and_nothing_is_run_again(inputs: Path, study: Path) -> None:
    assert not list((study / "stages").glob("pretrain-*/*/model.safetensors"))
    before, said = table(study), []
    run_study(read_grid(study.parent / "grid.yaml"), study, say=said.append)
    assert said == []
    assert table(study) == before


def test_a_cell_killed_before_its_model_has_gone_is_ended(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output)
    small = read_grid(study.parent / "grid.yaml")
    cell = small.cells[-1]
    state = output / "cells" / f"{cell.id}.json"
    before = json.loads(state.read_text())
    state.write_text(json.dumps({"name": cell.name, "state": "begun"}))
    model = steps_of(small, cell, output, {})["pretrain"].output / "model.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    run_study(small, output)
    assert not model.exists()
    assert json.loads(state.read_text())["state"] == "done"
    assert json.loads(state.read_text())["name"] == before["name"]


def test_another_seed_makes_what_is_new_alone(inputs: Path, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output)
    more = grid(inputs, tmp_path, axes={**AXES, "seed": [0, 1, 2]})
    assert [p.cell.seed for p in plan_study(more, output).todo] == [2, 2, 2]
    plan = {name: (wanted, distinct, done) for name, wanted, distinct, done in plan_study(more, output).stages}
    assert plan["vocab"] == (6, 1, 1)
    assert plan["init"] == (6, 4, 3)
    assert plan["pretrain"] == (9, 9, 6)


# -- what goes wrong ----------------------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_named_and_the_others_go_on(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lep.study import steps

    whole = steps.init.add_steps

    def fails(study: Any) -> None:
        if study.recipe[steps.init]["strategy"] == "random":
            study.add("init", "init", study.output / "x", lambda _: 1 / 0, needs=["vocab"], settings={"broken": True})
        else:
            whole(study)

    said: list[str] = []
    axes = {**AXES, "seed": [0]}
    with monkeypatch.context() as patched:
        patched.setattr(steps.init, "add_steps", fails)
        with pytest.raises(DarumeruError, match=r"1 of 3 cells failed \(new tokens 40 · initialisation random"):
            run_study(grid(inputs, tmp_path, axes=axes), tmp_path / "out", say=said.append)
    assert any("ZeroDivisionError" in line for line in said)
    assert [row["state"] for row in table(tmp_path / "out")] == ["done", "done", "failed"]
    assert "ZeroDivisionError" in (tmp_path / "out" / "report" / "report.md").read_text()
    # The same command tries it again, and that alone.
    said.clear()
    run_study(grid(inputs, tmp_path, axes=axes), tmp_path / "out", say=said.append)
    assert len(made(said, "pretrain")) == 1
    assert {row["state"] for row in table(tmp_path / "out")} == {"done"}


def test_half_of_the_designs_go_further(inputs: Path, tmp_path: Path) -> None:
    chosen = grid(inputs, tmp_path, axes=LENGTHS)
    run_study(chosen, tmp_path / "out", halving=True)
    rows = table(tmp_path / "out")
    short = {row["initialisation"]: float(row["end"]) for row in rows if row["training tokens"] == "128"}
    better = sorted(short, key=short.__getitem__)[:2]
    further = {row["initialisation"]: row["state"] for row in rows if row["training tokens"] == "256"}
    assert further == {name: "done" if name in better else "stopped" for name in short}
    said: list[str] = []
    run_study(chosen, tmp_path / "out", halving=True, say=said.append)
    assert said == []


# -- the plan -----------------------------------------------------------------------------------------------------------


def test_a_budget_takes_the_most_informative_cells_and_says_what_is_left(inputs: Path, tmp_path: Path) -> None:
    small = grid(inputs, tmp_path)
    whole = plan_study(small, tmp_path / "out")
    assert len(whole.todo) == 6
    # The first three tell all there is without a repetition: the control and both initialisations.
    assert {(c.cell.control, c.cell.values["init.strategy"]) for c in whole.cells[:3]} == {
        (True, None), (False, "mean"), (False, "random"),
    }  # fmt: skip
    part = plan_study(small, tmp_path / "out", budget=sum(p.hours for p in whole.cells[:3]) * 1.001)
    assert [p.cell.id for p in part.todo] == [p.cell.id for p in whole.cells[:3]]
    assert len(part.left_out) == 3
    assert plan_study(small, tmp_path / "out", budget=whole.cells[0].hours / 2).todo == []
    with open_workers(2, None, gpus=False) as two:
        assert plan_study(small, tmp_path / "out", workers=two).hours == pytest.approx(whole.hours)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (["axes.tokens=[10000000]"], {}, "ru.jsonl is too small for 10,000,000 tokens: 10,000,000 are read from it"),
        (["base=elsewhere"], {}, "The base elsewhere cannot be read"),
        (["corpus=none.jsonl"], {}, "There is no file none.jsonl"),
        (["held_out.ru=none.jsonl"], {}, "There is no file none.jsonl"),
        (["pretrain.replay=[none.jsonl=0.25]"], {}, "There is no file none.jsonl"),
        (["lang=ka"], {}, "Of the letters of ru.jsonl 0% are Georgian"),
        ([], {"halving": True}, "give the grid an axis tokens"),
        (["axes.tokens=[256,257]"], {}, "Two cells are the same training"),
    ],
)  # fmt: skip
def test_what_the_plan_refuses(
    inputs: Path, tmp_path: Path, changes: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_study(grid(inputs, tmp_path, *changes), tmp_path / "out", **options)


def test_a_base_that_cannot_write_the_script_is_refused(inputs: Path, tmp_path: Path) -> None:
    """Its byte-level vocabulary has the letters of English alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(inputs / "base", tmp_path / "base")
    letters = {letter: index for index, letter in enumerate(["</s>", *"abcdefghijklmnopqrstuvwxyzĠ"])}
    plain = Tokenizer(models.BPE(vocab=letters, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>").save_pretrained(tmp_path / "base")  # noqa: S106
    with pytest.raises(UserError, match=r"base cannot write Cyrillic: its tokenizer gives back 0% of the letters"):
        plan_study(grid(inputs, tmp_path), tmp_path / "out")


def test_a_disk_or_memory_without_room_is_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lep.study import plan

    with monkeypatch.context() as patched:
        patched.setattr(plan.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10_000))
        with pytest.raises(DarumeruError, match=r"needs 0\.0 GB of disk and 0\.0 GB are free"):
            plan_study(grid(inputs, tmp_path), tmp_path / "out")
    monkeypatch.setattr(plan, "free_memory", lambda: (10**9, 10**9))
    says = r"2 cells at a time need about .* GB of memory and 1\.0 GB are free. --workers 1 fits."
    with open_workers(2, None, gpus=False) as two, pytest.raises(UserError, match=says):
        plan_study(grid(inputs, tmp_path), tmp_path / "out", workers=two)


def test_a_folder_of_something_else_is_left_alone(inputs: Path, study: Path, tmp_path: Path) -> None:
    other = grid(inputs, tmp_path, "name=another")
    with pytest.raises(UserError, match="is the folder of the study 'tiny <b>grid</b>', not of 'another'"):
        run_study(other, study)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(UserError, match="holds something that no study wrote"):
        run_study(other, tmp_path / "mine")


def test_the_command_shows_its_plan(
    inputs: Path, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lep", "study", str(study.parent / "grid.yaml"), "--output", str(study.parent / "new"), "--dry-run"]
    for more, expected in (
        ([], 0),
        (["--budget", "10"], 2),
        (["--workers", "2", "--budget", "30m"], 0),
        (["--workers", "0"], 2),
    ):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == expected
    captured = capsys.readouterr()
    assert "--budget '10' is no time. Write hours or minutes above 0, such as 10h, 30m or 2h30m." in " ".join(
        captured.err.split()
    )
    assert "--workers 0: at least one cell is run at a time." in captured.err
    shown = " ".join(captured.out.split())
    assert "To run: 6 cells, 1,536 tokens" in shown
    assert "2 combinations are the same control as another one." in shown
    assert not (study.parent / "new").exists()


def test_a_language_is_its_corpus_and_scripts(inputs: Path, tmp_path: Path) -> None:
    """Latin words stand for a language that lep does not know."""
    texts(tmp_path / "la.jsonl", words("Latin"), 80, seed=0)
    axes = {"vocab.extend.add": [20], "init.strategy": ["mean"]}
    chosen = grid(
        inputs, tmp_path, f"corpus={tmp_path / 'la.jsonl'}", axes=axes, tokens=640, lang="xx", scripts=["Latin"],
        held_out={"xx": "held-en.jsonl"},
    )  # fmt: skip
    run_study(chosen, tmp_path / "out")
    (row,) = table(tmp_path / "out")
    assert row["new tokens in vocabulary"] == "20"
    assert float(row["end"]) < float(row["start"])


def test_the_example_grids_are_read() -> None:
    root = Path(__file__).parents[2] / "benchmarks" / "study"
    found = {file.stem: read_grid(file) for file in root.glob("*.yaml")}
    assert len(found["ru"].cells) == 28
    # A second language differs in its name, its texts and the lengths.
    ru, el = (yaml.safe_load((root / f"{name}.yaml").read_text()) for name in ("ru", "el"))
    assert {key for key in ru if ru[key] != el[key]} == {"name", "lang", "held_out", "axes"}
    assert GRID["pretrain"]["train"] == ru["pretrain"]["train"]


def test_when_the_time_is_over_no_cell_is_begun(inputs: Path, study: Path, tmp_path: Path) -> None:
    """The hours of a cell are known from those that are done."""
    output, said = tmp_path / "out", list[str]()
    shutil.copytree(study, output)
    more = grid(inputs, tmp_path, axes={**AXES, "seed": [0, 1, 2]})
    run_study(more, output, budget=1e-9, say=said.append)
    assert [line.partition(":")[0] for line in said] == ["left out, beyond the budget"] * 3
    assert [row["state"] for row in table(output)].count("left out") == 3
    assert "left out" in (output / "report" / "report.md").read_text()
