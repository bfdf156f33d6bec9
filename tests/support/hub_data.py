"""The data sets of all tasks as the hub has them: JSON behind a card, a loading script with its conversion, columns of dates."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from darumeru.data.bundle import MINI
from support.hub import Hub

Row = dict[str, Any]

DARUMERU = {
    "cp_doc_ru": ("test", "prompt"),
    "cp_para_en": ("test", "prompt"),
    "cp_para_ru": ("test", "prompt"),
    "cp_sent_en": ("test", "prompt"),
    "cp_sent_ru": ("test", "prompt"),
    "flores": ("test", "prompt"),
    "mmlu_nlpcoreteam": ("test", "dev"),
    "multiq": ("test", "prompt"),
    "parus": ("test", "prompt"),
    "rcb": ("test", "prompt"),
    "rummlu": ("test", "prompt"),
    "ruopenbookqa": ("test", "prompt"),
    "ruscibench_grnti_ru": ("test", "prompt"),
    "rutie": ("test", "prompt"),
    "ruworldtree": ("test", "prompt"),
    "rwsd": ("test", "prompt"),
    "use": ("test", "prompt"),
}
"""Configuration of RefalMachine/darumeru → its splits."""
SCRIPT = "raise SystemExit('a loading script was run')\n"


def mini_rows(dataset: str, split: str) -> list[Row]:
    """The rows of the mini bundle, read without the code that is tested."""
    text = (MINI / dataset / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def card(configurations: Mapping[str, Sequence[str]], more: str = "") -> str:
    """A README that declares the files `CONFIGURATION/SPLIT.jsonl` of each configuration."""
    text = "---\nlanguage:\n- ru\nconfigs:\n"
    for name, splits in configurations.items():
        text += f"- config_name: {name}\n  data_files:\n"
        text += "".join(f"  - split: {split}\n    path: {name}/{split}.jsonl\n" for split in splits)
    return text + more + "---\n# A data set\n"


def fill(hub: Hub) -> Hub:
    """Put the data sets of the suites `darumeru` and `darumeru-extended` on a hub, with the rows of the mini bundle."""
    files = {f"{d}/{s}.jsonl": lines(mini_rows(d, s)) for d, splits in DARUMERU.items() for s in splits}
    hub.repository("RefalMachine/darumeru").commit({"README.md": card(DARUMERU), ".gitattributes": "", **files})

    treeway = {f"data/{s}.jsonl": lines(mini_rows("daru_treeway_eval", s)) for s in ("test", "prompt")}
    declared = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: data/{split}.jsonl\n" for split in ("test", "prompt")
    )
    hub.repository("dichspace/daru_treeway_eval").commit({"README.md": declared + "---\n", **treeway})

    gazeta = {}
    for split in ("validation", "test"):
        rows = [
            {**row, "date": f"2020-03-{day + 1:02} 19:01:00", "url": f"https://news.example/{day}"}
            for day, row in enumerate(mini_rows("gazeta", split))
        ]
        gazeta[f"data/{split}-00000-of-00001.parquet"] = parquet(rows)
    hub.repository("IlyaGusev/gazeta").commit({"README.md": "---\nlanguage:\n- ru\n---\n# Gazeta\n", **gazeta})

    rucola = hub.repository("RussianNLP/rucola")
    rucola.commit(
        {"README.md": "---\nlanguage:\n- ru\n---\n", "rucola.py": SCRIPT, "in_domain_train.csv": "id,label\n"}
    )
    converted = {f"default/{s}/0000.parquet": parquet(mini_rows("rucola", s)) for s in ("train", "validation")}
    rucola.commit({".gitattributes": "", **converted}, "refs/convert/parquet")
    return hub
