"""A built wheel holds tasks and mini bundle and works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_works_outside_the_checkout(tiny_chat: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next((tmp_path / "dist").glob("darumeru-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "darumeru/tasks/darumeru.yaml" in names
    assert "darumeru/data/mini/parus/test.jsonl" in names
    assert {"darumeru/leaderboard/published.csv", "darumeru/leaderboard/web/index.html.j2"} <= set(names)
    recipes = {f"lep/recipes/{name}.yaml" for name in ("smollm2-ru", "smollm2-pair-ru")}
    assert recipes | {"lep/pipeline/web/index.html.j2"} <= set(names)
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "tasks/", "leaderboards/", "recipes/"))]
    code = (
        "import darumeru.task.suite, darumeru.data.bundle\n"
        f"assert str(darumeru.task.suite.TASKS).startswith({str(tmp_path)!r}), darumeru.task.suite.TASKS\n"
        f"assert str(darumeru.data.bundle.MINI).startswith({str(tmp_path)!r})\n"
        "from darumeru.cli import main\nmain()\n"
    )
    options = ["--model", str(tiny_chat), "--data", "mini", "--engine", "hf", "--tasks", "rwsd,mmlu_ru", "--limit", "2"]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *options, "--output", str(tmp_path / "runs")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mmlu_ru" in done.stdout
