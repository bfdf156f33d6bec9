"""The JSON schema of a record's files, made from the models: `python -m darumeru.record.schema > docs/record.schema.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import models_json_schema

from darumeru.record.folder import Manifest
from darumeru.record.header import Header
from darumeru.record.model import Part
from darumeru.record.sample import Sample
from darumeru.record.scores import Scores

FILES: dict[str, type[Part]] = {
    "header.json": Header,
    "samples/TASK.jsonl": Sample,
    "scores.json": Scores,
    "manifest.json": Manifest,
}
"""The files of a finished run; of a JSON-lines file each line is an object of the kind."""


def schema() -> dict[str, Any]:
    """Return the schema: `$defs` holds all kinds of objects, `files` names the one of each file."""
    places, definitions = models_json_schema([(kind, "validation") for kind in FILES.values()])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The record of a Darumeru run",
        "files": {name: places[kind, "validation"] for name, kind in FILES.items()},
        **definitions,
    }


def text() -> str:
    """Return the schema as the file `docs/record.schema.json` holds it."""
    return json.dumps(schema(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
