"""The control: the model before the change of vocabulary, trained on as much text, and the report of both."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from darumeru.errors import UserError
from lep import cli
from lep.measure.bits import bits_per_byte
from lep.measure.held_out import HeldOut
from lep.model.manifest import write_manifest
from lep.pipeline.adaptation import _reached, write_adaptation
from lep.pretraining.control import control_folder, control_settings, train_control
from lep.pretraining.job import pretrain
from lep.pretraining.settings import settings_of
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level
from support.pretraining import interrupt, make_base, small


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Path]:
    russian = ["\n".join(RUSSIAN[number % 3 :] + RUSSIAN[: number % 3]) for number in range(30)]
    return {"ru": write(tmp_path / "ru.jsonl", russian), "en": write(tmp_path / "en.jsonl", ENGLISH * 4)}


@pytest.fixture
def pair(make_model: Callable[..., Path]) -> tuple[Path, Path]:
    """The original with few tokens, and a model of more tokens that was made from it."""
    settings = {"rows": 320, "initializer_range": 0.3, "max_position_embeddings": 256}
    original = save_byte_level(make_model("original", "llama-tied", **settings), ENGLISH, 290)
    adapted = make_base(make_model, "llama-tied", "adapted", max_position_embeddings=256)
    write_manifest(adapted, "init", inputs={"model": original}, settings={}, measures={"added_ids": [[300, 399]]})
    return original, adapted


def test_the_control_reads_as_much_of_each_text(
    pair: tuple[Path, Path], texts: dict[str, Path], tmp_path: Path
) -> None:
    original, adapted = pair
    settings = small(
        train="new-rows+lora",
        max_steps=6,
        block_size=160,
        packing=False,
        new_from=None,
        replay=(f"{texts['en']}=0.25",),
    )
    manifest = pretrain(adapted, [texts["ru"]], tmp_path / "out", settings=settings)
    control = train_control(original, [texts["ru"]], tmp_path / "out", held_out=[], settings=settings)
    assert control_folder(tmp_path / "out") == tmp_path / "out-control"
    assert control["settings"]["train"] == "lora"
    ours, theirs = manifest["measures"], control["measures"]
    assert theirs["characters"] == pytest.approx(ours["characters"], rel=0.1)
    assert theirs["replay"][0]["passes"] == pytest.approx(ours["replay"][0]["passes"], rel=0.1)
    assert theirs["tokens"] > 1.3 * ours["tokens"], "its tokens are shorter"
    tokenizer = AutoTokenizer.from_pretrained(original)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out-control")) == len(tokenizer)
    assert train_control(original, [texts["ru"]], tmp_path / "out", held_out=[], settings=settings) == control


def test_what_the_control_trains() -> None:
    def trained(train: str) -> str:
        return control_settings(settings_of(train=train)).train

    assert trained("new-rows+lora") == "lora"
    assert trained("embeddings+lora") == "embeddings+lora"
    assert trained("head:0.1,new-rows+lora") == "head:0.1,lora"
    assert trained("all") == "all"
    with pytest.raises(UserError, match="nothing to compare with"):
        trained("new-rows:0.5,new-rows+lora")
    own = control_settings(settings_of(train="lora", suite="mini", keep_best="micro_avg", stop_if=("x > 1",)))
    assert (own.suite, own.keep_best, own.stop_if) == (None, None, ())


def test_where_a_curve_reaches_a_level() -> None:
    curve = [(0, 3.0), (100, 2.0), (300, 1.0), (400, 1.5)]
    assert _reached(curve, 2.5) == 50
    assert _reached(curve, 1.5) == 200
    assert _reached(curve, 3.5) == 0
    assert _reached(curve, 0.9) is None


@pytest.mark.parametrize("version", ["now", "earlier"])
def test_a_text_that_was_not_measured_along_the_trainings_gets_no_figures(
    pair: tuple[Path, Path], texts: dict[str, Path], tmp_path: Path, version: str
) -> None:
    original, adapted = pair
    out, given = tmp_path / "out", [f"ru={texts['ru']}"]
    settings = small(train="new-rows+lora", max_steps=2, block_size=160, new_from=None)
    pretrain(adapted, [texts["ru"]], out, held_out=given, settings=settings)
    train_control(original, [texts["ru"]], out, held_out=given, settings=settings)
    if version == "earlier":  # which noted the names of the texts alone
        for folder in (out, control_folder(out)):
            (folder / "held-out.json").unlink()
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    last = [line["eval_bits_per_byte"] for line in history if "eval_bits_per_byte" in line][-1]

    def report(*sources: str) -> dict[str, Any]:
        held_out = HeldOut.read(sources, characters=settings.held_out_characters)
        page = write_adaptation(original, control_folder(out), out, held_out)
        assert ("Left out" in page.read_text()) == ("kk" in " ".join(sources))
        found: dict[str, Any] = json.loads((out / "adaptation" / "adaptation.json").read_text())
        return found

    whole = report(*given)
    assert whole["texts"]["ru"]["adapted"] == pytest.approx(last)
    # A text that came later has no curve: it does not get that of the text before.
    more = report(f"kk={texts['en']}", *given)
    assert (more["texts"], more["left_out"]) == (whole["texts"], ["kk"])
    with pytest.raises(UserError, match="were not measured on kk"):
        report(f"kk={texts['en']}")
    if version == "now":
        replaced = f"ru={write(tmp_path / 'other.jsonl', ENGLISH)}"
        with pytest.raises(UserError, match="were not measured on ru as the text is now"):
            report(replaced)


def test_a_training_goes_on_with_the_held_out_texts_that_it_began_with(
    pair: tuple[Path, Path], texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(train="new-rows", max_steps=4, save_steps=1, block_size=160, new_from=None)

    def train(*held_out: str) -> dict[str, Any]:
        return pretrain(pair[1], [texts["ru"]], tmp_path / "out", held_out=held_out, settings=settings)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="interrupted"):
        interrupt(patched, 2)
        train(f"ru={texts['ru']}")
    with pytest.raises(UserError, match=r"another held-out text ru.*\(ru2=FILE\)"):
        train(f"ru={texts['en']}")
    assert set(train(f"ru={texts['ru']}", f"ru2={texts['en']}")["settings"]["held_out"]) == {"ru", "ru2"}


def test_the_command_and_its_report(
    pair: tuple[Path, Path], texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    original, adapted = pair
    out = tmp_path / "out"

    def run(*extra: Any) -> int:
        arguments = [
            "lep", "pretrain", "--model", adapted, "--corpus", texts["ru"], "--output", out, "--held-out",
            f"ru={texts['ru']}", f"en={texts['en']}", "--block-size", "160", "--total-batch-size", "4",
            "--per-device-train-batch-size", "4", "--max-steps", "8", "--warmup-steps", "1", "--device", "cpu",
            "--eval-steps", "2", "--lora-learning-rate", "1e-2", "--learning-rate", "1e-2", *extra, "--control",
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0)

    assert run("--train", "new-rows") == 2
    assert "nothing to compare with" in capsys.readouterr().err
    assert not out.exists()
    assert run("--train", "new-rows+lora", "--replay", f"{texts['en']}=0.25") == 0
    assert "adaptation.md" in capsys.readouterr().out
    report = json.loads((out / "adaptation" / "adaptation.json").read_text())
    russian = [json.loads(line)["text"] for line in texts["ru"].read_text().splitlines()]
    ru = report["texts"]["ru"]
    assert ru["original"] == pytest.approx(bits_per_byte(original, russian), rel=1e-4)
    assert ru["adapted_before"] == pytest.approx(bits_per_byte(adapted, russian), rel=1e-4)
    assert ru["adapted"] == pytest.approx(bits_per_byte(out, russian), rel=1e-4)
    assert ru["control"] == pytest.approx(bits_per_byte(tmp_path / "out-control", russian), rel=1e-4)
    assert ru["cost_at_the_change"] == pytest.approx(ru["adapted_before"] - ru["original"])
    assert ru["cost_at_the_end"] == pytest.approx(ru["adapted"] - ru["control"])
    count = {
        name: sum(len(AutoTokenizer.from_pretrained(folder)(t, add_special_tokens=False)["input_ids"]) for t in russian)
        for name, folder in (("original", original), ("adapted", adapted))
    }
    size = sum(len(text.encode()) for text in russian)
    for name, tokens in count.items():
        assert report[name]["tokens_per_byte"]["ru"] == pytest.approx(tokens / size)
    for name in ("control", "adapted"):
        curve = report[name]["curve"]
        for key in ("step", "characters", "tokens", "flop", "seconds"):
            values = [point[key] for point in curve]
            assert values == sorted(values)
            assert values[0] == 0 < values[-1], key
    assert report["control"]["curve"][-1]["characters"] == pytest.approx(
        report["adapted"]["curve"][-1]["characters"], rel=0.1
    )
    page = (out / "adaptation" / "adaptation.md").read_text()
    assert f"{ru['cost_at_the_end']:+.4f}" in page
    assert "|  |" not in page
    svg = (out / "adaptation" / "adaptation.svg").read_text()
    assert all(name in svg for name in ("original", "control", "adapted", "bits per byte"))
