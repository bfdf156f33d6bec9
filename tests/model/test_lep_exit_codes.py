"""One rule for errors: what the user can mend ends with exit code 2, what failed with 1."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from darumeru.errors import UserError
from lep import cli
from lep.pretraining.job import pretrain
from lep.pretraining.settings import settings_of
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join((RUSSIAN + ENGLISH) * 5))
    return path


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    return save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)


def test_a_mistake_in_the_settings_of_a_training_is_the_users(base: Path, corpus: Path, tmp_path: Path) -> None:
    settings = settings_of(block_size=32, total_batch_size=4, per_device_train_batch_size=3)
    with pytest.raises(UserError, match="--total-batch-size 4 is no multiple of 3"):
        pretrain(base, [corpus], tmp_path / "out", settings=settings)


def test_a_mistake_that_shows_in_the_training_ends_with_exit_code_2(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "lep", "pretrain", "--model", base, "--corpus", corpus, "--output", tmp_path / "out", "--block-size", 32,
        "--total-batch-size", 2, "--per-device-train-batch-size", 2, "--max-steps", 1,
        "--stop-if", "darumeru < 0.9 for 3",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "need --suite" in capsys.readouterr().err
