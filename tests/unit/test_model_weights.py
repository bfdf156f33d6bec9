"""The fingerprint of a model's weights, also where they are read while something else is done."""

import hashlib
import threading
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.inference.model import Model, open_model

CONTENT = {"a.safetensors": b"one", "b.safetensors": b"two", "c.safetensors": b"three" * 100_000}


def model_of(folder: Path) -> Model:
    return Model("model", folder, {}, tuple(folder / name for name in CONTENT), 0)


@pytest.mark.parametrize("ahead", [True, False])
def test_the_fingerprint_is_that_of_all_files(ahead: bool, tmp_path: Path) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    model = model_of(tmp_path)
    if ahead:
        model.hash_ahead()
        for thread in [t for t in threading.enumerate() if t.name == "weights"]:
            thread.join()
        for name in CONTENT:
            (tmp_path / name).unlink()  # what was read is not read again
    listed = ", ".join(f'["{name}", "{hashlib.sha256(content).hexdigest()}"]' for name, content in CONTENT.items())
    assert model.weights_sha256 == hashlib.sha256(f"[{listed}]".encode()).hexdigest()


def test_a_file_that_cannot_be_read_is_told_when_the_fingerprint_is_needed(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    model.hash_ahead()
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors"):
        _ = model.weights_sha256


@pytest.mark.parametrize(
    "entry", ['{"dtype": "F32"}', '{"dtype": "F32", "shape": [2], "data_offsets": "08"}', "5",
              '{"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}'],
)  # fmt: skip
def test_a_header_that_does_not_describe_tensors_is_one_sentence(entry: str, tmp_path: Path) -> None:
    header = f'{{"weight": {entry}}}'.encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=r"its header is broken\. Copy or download it again"):
        open_model(str(tmp_path))
