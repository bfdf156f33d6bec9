"""The record of a race: a folder beside the runs.

header.json    which runs raced, on what, with which error rate; its fingerprint is the race's identity
looks.jsonl    for each look: documents asked, share of the cost, intervals
result.json    verdicts and intervals; what `darumeru race --json` prints
race.svg       the intervals as they closed
manifest.json  written last: the race is over, and these are its files

The answers are in the runs' own folders. A race that was stopped begins again from them, which costs no second answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from darumeru.files import fingerprint, slug, write_json, write_jsonl, write_text
from darumeru.race.contest import Race
from darumeru.race.contestants import Contestant
from darumeru.record.folder import seal, unseal

FORMAT = 1
KIND = "race"


def write(race: Race, contestants: Sequence[Contestant], seed: int, output: Path) -> Path:
    """Write the record of a race and return its folder.

    Args:
        race: that is over.
        contestants: in the order of its names.
        seed: of the order of documents.
        output: the folder under which it gets one.
    """
    header = {
        "format": FORMAT,
        "kind": KIND,
        "suite": contestants[0].header.suite.name,
        "models": [
            {"name": name, "run": c.run.path.name, "id": c.header.id, "mode": c.header.mode, "num_fewshot": c.header.num_fewshot}
            for name, c in zip(race.names, contestants, strict=True)
        ],
        "alpha": race.alpha,
        "margin": race.margin,
        "seed": seed,
        "tasks": race.tasks,
    }  # fmt: skip
    identity = fingerprint(header)
    folder = output / f"race-{slug('-'.join(race.names))}-{identity[:10]}"
    unseal(folder)
    write_json(folder / "header.json", header | {"id": identity})
    write_jsonl(folder / "looks.jsonl", (asdict(look) for look in race.looks))
    write_json(folder / "result.json", race.to_json())
    files = ["header.json", "looks.jsonl", "result.json"]
    if find_spec("altair") and find_spec("vl_convert"):
        from darumeru.race.picture import to_svg

        write_text(folder / "race.svg", to_svg(race))
        files.append("race.svg")
    seal(folder, files)
    race.path = folder
    return folder
