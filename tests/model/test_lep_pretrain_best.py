"""The checkpoint that is the result, by a rule over held-out texts; and the model before the change of vocabulary."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darumeru.errors import UserError
from lep.measure.bits import bits_per_byte
from lep.model.checkpoint import open_checkpoint
from lep.model.manifest import write_manifest
from lep.model.shards import read_rows
from lep.pretraining.best import Choice, parse_limits
from lep.pretraining.job import pretrain
from lep.pretraining.original import find_original
from lep.pretraining.settings import settings_of
from support.lep_models import ENGLISH, RUSSIAN
from support.pretraining import make_base, small

NAMES = ("ru", "en")


def log(*values: tuple[float, float]) -> list[dict[str, Any]]:
    """A log: bits per byte of Russian and English at steps 0, 10, 20, …"""
    entries: list[dict[str, Any]] = []
    for number, (ru, en) in enumerate(values):
        entries.append({"step": 10 * number, "loss": 1.0})
        entries.append(
            {
                "step": 10 * number,
                "eval_bits_per_byte": (ru + en) / 2,
                "eval_bits_per_byte_ru": ru,
                "eval_bits_per_byte_en": en,
            }
        )
    return entries


def chosen(measure: str, within: tuple[str, ...], entries: list[dict[str, Any]], **before: float) -> Any:
    choice = Choice.of(measure, within, NAMES)
    assert choice is not None
    reference = {f"bits_per_byte_{name}": value for name, value in before.items()} or None
    return choice.best(entries, [10, 20, 30], reference)


def test_the_lowest_of_those_that_keep_the_limits() -> None:
    entries = log((2.5, 1.5), (2.0, 1.50), (1.8, 1.51), (1.6, 1.60))
    assert chosen("bits_per_byte_ru", (), entries) == (30, True)
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 1%",), entries) == (20, True)
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 0%",), entries) == (10, True)
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 1%",), entries, en=1.6) == (30, True)
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 1.55",), entries) == (20, True)
    assert chosen("bits_per_byte", (), entries) == (30, True)
    # None keeps them: the one that is least above.
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 1.4",), entries) == (10, False)
    assert chosen("bits_per_byte_ru", ("bits_per_byte_en 1.55", "bits_per_byte_ru 1.5"), entries) == (30, False)
    # Only what was saved; of equals the first.
    assert Choice.of("bits_per_byte_ru", (), NAMES).best(entries, [10]) == (10, True)  # type: ignore[union-attr]
    assert chosen("bits_per_byte_ru", (), log((2, 2), (1, 2), (1, 2))) == (10, True)
    assert chosen("bits_per_byte_ru", (), []) is None


def test_measures_that_are_none_are_refused() -> None:
    assert Choice.of("micro_avg", (), NAMES) is None
    assert Choice.of(None, (), NAMES) is None
    for measure, within in (("bits_per_byte_de", ()), ("micro_avg", ("bits_per_byte_en 1%",)), (None, ("x 1%",))):
        with pytest.raises(UserError, match="bits_per_byte_ru"):
            Choice.of(measure, within, NAMES)
    with pytest.raises(UserError, match="--within bits_per_byte_de"):
        Choice.of("bits_per_byte_ru", ("bits_per_byte_de 1%",), NAMES)
    for wrong in ("bits_per_byte_en", "bits_per_byte_en < 2", "bits_per_byte_en 0", "bits_per_byte_en -1%"):
        with pytest.raises(UserError, match="--within"):
            settings_of(within=(wrong,))
    assert parse_limits(["bits_per_byte_en 0.5%"])[0].more == pytest.approx(0.005)


@pytest.fixture
def made(make_model: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """The original, a model made from it by `lep init`, and held-out texts."""
    original = make_base(make_model, "llama-tied", "original")
    adapted = make_base(make_model, "llama-tied", "adapted")
    write_manifest(adapted, "init", inputs={"model": original}, settings={}, measures={})
    held_out = []
    for name, texts in (("ru", RUSSIAN), ("en", ENGLISH)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
        held_out.append(f"{name}={path}")
    return original, adapted, held_out


def test_the_best_checkpoint_is_the_result(made: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    original, adapted, held_out = made
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in ENGLISH * 9))
    said: list[str] = []
    settings = small(
        train="all", max_steps=12, save_steps=3, eval_steps=5, learning_rate=0.02, save_total_limit=2,
        keep_best="bits_per_byte_ru", within=("bits_per_byte_en 1%",),
    )  # fmt: skip
    manifest = pretrain(adapted, [corpus], tmp_path / "out", held_out=held_out, settings=settings, warn=said.append)
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    measured = {line["step"]: line for line in history if "eval_bits_per_byte" in line}
    assert {3, 6, 9, 12} <= set(measured), "each checkpoint is measured"
    before = bits_per_byte(original, ENGLISH)
    assert manifest["measures"]["original"]["bits_per_byte_en"] == pytest.approx(before, rel=1e-5)
    kept = [step for step in (3, 6, 9, 12) if measured[step]["eval_bits_per_byte_en"] <= before * 1.01]
    key = "eval_bits_per_byte_ru" if kept else "eval_bits_per_byte_en"
    wanted = min(kept or (3, 6, 9, 12), key=lambda step: measured[step][key])
    assert wanted < 9, "neither of the last two, which stay in any case"
    assert manifest["measures"]["best_checkpoint"] == f"checkpoint-{wanted}"
    assert any("keeps --within" in line for line in said) != bool(kept)
    assert manifest["measures"]["bits_per_byte_ru"]["after"] == measured[wanted]["eval_bits_per_byte_ru"]
    best, result = (
        open_checkpoint(f).tensors for f in (tmp_path / f"out/checkpoints/checkpoint-{wanted}", tmp_path / "out")
    )
    for name, tensor in best.items():
        rows = tensor.shape[0]
        assert torch.equal(read_rows(tensor, 0, rows), read_rows(result[name], 0, rows))


def test_the_model_before_the_change_is_found_beside(made: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    original, adapted, _ = made
    assert find_original(adapted) == original
    assert find_original(original) is None
    assert find_original(adapted, adapted) == adapted, "named"
    later = tmp_path / "later"
    later.mkdir()
    write_manifest(later, "pretrain", inputs={"model": adapted}, settings={}, measures={})
    assert original.parent in (tmp_path, tmp_path.parent)
    assert find_original(later) == original
    (original / "config.json").write_text((original / "config.json").read_text() + " ")
    assert find_original(adapted) is None, "another model of that name"


def test_a_measure_without_texts_is_refused(made: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    _, adapted, held_out = made
    with pytest.raises(UserError, match="--held-out NAME=FILE"):
        pretrain(adapted, [tmp_path / "c"], tmp_path / "out", settings=small(keep_best="bits_per_byte_ru"))
    with pytest.raises(UserError, match="need --suite"):
        pretrain(
            adapted, [held_out[0].partition("=")[2]], tmp_path / "out", held_out=held_out,
            settings=small(keep_best="micro_avg", max_steps=1),
        )  # fmt: skip


def test_a_finished_training_can_be_asked_for_another_of_its_checkpoints(
    made: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    _, adapted, held_out = made
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    corpus.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in ENGLISH * 9))
    shared: dict[str, Any] = {"train": "all", "max_steps": 6, "save_steps": 2, "learning_rate": 0.3}

    def train(*texts: str, **changes: Any) -> tuple[dict[str, Any], str]:
        said: list[str] = []
        manifest = pretrain(
            adapted, [corpus], out, held_out=texts or held_out, settings=small(**shared, **changes), warn=said.append
        )
        return manifest, " ".join(said)

    def result() -> dict[str, Any]:
        return {name: read_rows(t, 0, t.shape[0]) for name, t in open_checkpoint(out).tensors.items()}

    train()
    last = result()
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    ru = {line["step"]: line["eval_bits_per_byte_ru"] for line in history if "eval_bits_per_byte_ru" in line}
    best = min((2, 4, 6), key=lambda step: ru[step])
    assert best != 6, "the rate is so high that it does not end where it was best"
    manifest, said = train(keep_best="bits_per_byte_ru")
    assert manifest["measures"]["best_checkpoint"] == f"checkpoint-{best}"
    assert manifest["measures"]["bits_per_byte_ru"]["after"] == ru[best]
    assert "among its checkpoints of steps 2, 4, 6" in said
    kept = open_checkpoint(out / "checkpoints" / f"checkpoint-{best}").tensors
    assert all(torch.equal(read_rows(t, 0, t.shape[0]), result()[name]) for name, t in kept.items())
    assert train(keep_best="bits_per_byte_ru")[1] == "", "the same again is done"
    # And back to the last.
    assert "best_checkpoint" not in train()[0]["measures"]
    assert all(torch.equal(tensor, result()[name]) for name, tensor in last.items())
    # What comes too late is said, and changes nothing.
    before = (out / "lep.json").read_bytes()
    assert "--stop-if does not end it" in train(suite="darumeru-train", stop_if=("darucopy_ru < 0.9 for 3",))[1]
    assert "not watched by micro_avg" in train(suite="darumeru-train", keep_best="micro_avg")[1]
    assert "not measured on more" in train(*held_out, f"more={corpus}")[1]
    assert "not measured on ru as given now" in train(f"ru={corpus}", held_out[1])[1]
    shutil.rmtree(out / "checkpoints")
    assert "its checkpoints are gone" in train(keep_best="bits_per_byte_ru")[1]
    assert (out / "lep.json").read_bytes() == before
