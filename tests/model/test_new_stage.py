"""A stage of another package: one file and its metadata, nothing of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.pipeline import make_inputs, write_recipe

STAGE = """
import json
from pathlib import Path

from lep.pipeline.sections import checked, inside
from lep.pipeline.stage import Stage
from darumeru.options import settings_model


def count_letters(file, output, letter: str = "a"):
    output.write_text(json.dumps({letter: Path(file).read_text().count(letter)}))


class LettersStage(Stage):
    name = "letters"
    help = "Letters of the first corpus file, counted."
    after = "vocab"
    schema = settings_model("letters", count_letters, "file output")

    def read(self, content, top):
        return checked(self.schema, inside(content, self.name), self.name)

    def add_steps(self, study):
        corpus, output, settings = study.recipe.top.corpus[0], study.output / "letters.json", study.recipe[self]
        study.add(
            self.name, self.name, output, lambda talk: count_letters(corpus, output, **settings),
            inputs=[corpus], settings=settings,
        )


letters = LettersStage()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder as pip makes it."""
    place = tmp_path / "site"
    (place / "other_stage-1.0.dist-info").mkdir(parents=True)
    (place / "other_stage.py").write_text(STAGE)
    (place / "other_stage-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other-stage\nVersion: 1.0\n"
    )
    (place / "other_stage-1.0.dist-info" / "entry_points.txt").write_text(
        "[lep.stages]\nletters = other_stage:letters\n"
    )
    return place


def lep_run(package: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "lep", "run", *map(str, arguments)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_lep_run_knows_it(package: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    recipe = write_recipe(inputs, letters={"letter": "о"})
    done = lep_run(package, recipe, "--output", tmp_path / "study", "--only", "letters")
    assert done.returncode == 0, done.stderr
    text = (inputs / "ru.jsonl").read_text()
    assert (tmp_path / "study" / "letters.json").read_text() == f'{{"\\u043e": {text.count("о")}}}'
    again = lep_run(package, recipe, "--output", tmp_path / "study", "--only", "letters")
    assert "letters →" not in again.stderr, "what is done is not run again"
    plan = lep_run(package, recipe, "--output", tmp_path / "study", "--dry-run").stdout
    order = [line.split()[0] for line in plan.splitlines() if line.strip()]
    assert order.index("vocab") < order.index("letters") < order.index("init"), plan


def test_its_mistakes_are_sentences(package: Path, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    wrong = lep_run(package, write_recipe(tmp_path, letters={"lettre": "о"}), "--output", tmp_path / "study")
    assert wrong.returncode == 2
    assert "Unknown key 'letters.lettre'. Did you mean 'letters.letter'?" in " ".join(wrong.stderr.split())
    (package / "other_stage.py").write_text(STAGE.replace('after = "vocab"', 'after = "vocabulary"'))
    lost = lep_run(package, write_recipe(tmp_path), "--output", tmp_path / "study")
    assert lost.returncode == 2
    assert "Unknown stage before the stage 'letters' 'vocabulary'. Did you mean 'vocab'?" in " ".join(
        lost.stderr.split()
    )
