"""The record on disk: committed runs are read key for key, the schema is theirs, and what is wrong is said in a sentence."""

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from darumeru.errors import DarumeruError, UserError
from darumeru.files import dumps
from darumeru.record.folder import exclusive, seal, verify
from darumeru.record.run import Run, find_runs, load_run
from darumeru.record.sample import read_samples
from support.synthetic import make_run

ROOT = Path(__file__).parents[2]
COMMITTED = sorted(p.parent for p in (ROOT / "leaderboards" / "runs").glob("*/header.json"))
SCHEMA = ROOT / "docs" / "record.schema.json"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.name)
def test_a_committed_record_is_written_as_it_was_read(path: Path) -> None:
    run = load_run(path)
    run.verify()
    for name, part in (("header.json", run.header), ("scores.json", run.scores)):
        assert json.dumps(part.to_json(), ensure_ascii=False, indent=2) + "\n" == (path / name).read_text("utf-8")
    for task in run.tasks:
        lines = "".join(dumps(sample.to_json()) + "\n" for sample in run.samples(task))
        assert lines == (path / "samples" / f"{task}.jsonl").read_text("utf-8"), task


def test_the_committed_schema_is_that_of_the_models() -> None:
    from darumeru.record.schema import text

    assert SCHEMA.read_text("utf-8") == text(), "python -m darumeru.record.schema > docs/record.schema.json"


def validator(file: str) -> Any:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    return jsonschema.Draft202012Validator({"$defs": schema["$defs"], **schema["files"][file]})


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.name)
def test_committed_records_fit_the_schema(path: Path) -> None:
    for name in ("header.json", "scores.json", "manifest.json"):
        validator(name).validate(json.loads((path / name).read_text("utf-8")))
    sample = validator("samples/TASK.jsonl")
    for file in sorted((path / "samples").iterdir()):
        for line in file.read_text("utf-8").splitlines():
            sample.validate(json.loads(line))


def test_the_schema_refuses_what_no_run_writes() -> None:
    scores = json.loads((COMMITTED[0] / "scores.json").read_text("utf-8"))
    scores["suite"]["value"] = "0.5"
    assert not validator("scores.json").is_valid(scores)


def test_a_key_of_a_newer_version_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", "m", tasks=["rwsd"], documents=3)
    header = json.loads((path / "header.json").read_text())
    header["model"]["quantization"] = "int4"
    (path / "header.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"header\.json has the key 'model\.quantization'.*a newer version wrote it"):
        load_run(path)
    (path / "header.json").write_text(json.dumps({**header, "format": 2}))
    with pytest.raises(UserError, match="has format 2, this version reads 1"):
        load_run(path)


def test_a_broken_sample_is_named_by_its_line(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", "m", tasks=["rwsd"], documents=3)
    file = path / "samples" / "rwsd.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1].replace('"prompt_tokens": 12', '"prompt_tokens": "a dozen"') + lines[2])
    with pytest.raises(
        UserError, match=r"not as a run writes it: 'samples/rwsd\.jsonl', line 2, requests\.0\.prompt_tok"
    ):
        list(Run(path).samples("rwsd"))


def test_an_arena_among_runs_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "m", tasks=["rwsd"], documents=3)
    (tmp_path / "arena").mkdir()
    (tmp_path / "arena" / "header.json").write_text('{"kind": "arena", "format": 1}')
    assert [run.path.name for run in find_runs(tmp_path)] == ["run"]
    with pytest.raises(UserError, match="record of another thing"):
        load_run(tmp_path / "arena")


def test_a_sealed_folder_notices_a_change_and_a_loss(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "journal.jsonl").touch()
    seal(tmp_path, ["a.json"])
    assert not (tmp_path / "journal.jsonl").exists()
    verify(tmp_path, "thing", "Do it again.")
    (tmp_path / "a.json").write_text("2")
    with pytest.raises(DarumeruError, match=r"a\.json' is not what the finished thing wrote\. Do it again\."):
        verify(tmp_path, "thing", "Do it again.")
    (tmp_path / "a.json").unlink()
    with pytest.raises(DarumeruError, match="finished thing"):
        verify(tmp_path, "thing", "Do it again.")


def test_a_folder_is_held_by_one(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UserError, match="Another process"), exclusive(tmp_path):
        pass


def test_reading_samples_stays_quick(tmp_path: Path) -> None:
    """A board reads millions: 20,000 samples a second and more on one core; a tenth of that is a fault."""
    path = make_run(tmp_path / "run", "m", tasks=["rwsd"], documents=2000)
    began = time.process_time()
    assert len(list(read_samples(path / "samples" / "rwsd.jsonl"))) == 2000
    assert time.process_time() - began < 1.0
