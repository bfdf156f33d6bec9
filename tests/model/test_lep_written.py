"""New tokens in what a model writes: their share, and of how many chances."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from lep.measure.held_out import new_tokens_written
from support.tiny import make_model


class Writer:
    """Writes the same tokens after every prompt."""

    device = "cpu"
    generation_config = SimpleNamespace(eos_token_id=None)

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer

    def generate(self, ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([ids, torch.tensor([self.answer] * len(ids))], dim=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return transformers.AutoTokenizer.from_pretrained(make_model(tmp_path_factory.mktemp("m") / "model", chat=False))


def test_words_spelled_in_old_pieces_are_chances_not_taken(tokenizer: Any) -> None:
    whole = [tokenizer(" и")["input_ids"], tokenizer(" в")["input_ids"]]
    assert [len(ids) for ids in whole] == [1, 1]
    new = {ids[0] for ids in whole}
    (one, other), space = (ids[0] for ids in whole), tokenizer("x y")["input_ids"]
    spelled = [i for ch in " и".encode() for i in [tokenizer.convert_tokens_to_ids(_byte(ch))]]
    assert tokenizer.decode(spelled) == " и", "the same text in pieces"
    found = new_tokens_written(Writer([one, other, *spelled, *spelled]), tokenizer, ["x", "y"], new)
    assert found.taken == pytest.approx(2 / 4)
    assert found.share == pytest.approx(2 / (2 + 2 * len(spelled)))
    nothing = new_tokens_written(Writer(space), tokenizer, ["x"], new)
    assert (nothing.share, nothing.taken) == (0.0, None)


def _byte(value: int) -> str:
    """The letter by which byte-level BPE writes a byte (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in kept]
    return chr(value) if value in kept else chr(256 + others.index(value))


def test_who_writes_every_new_token_takes_all_chances(tokenizer: Any, tmp_path: Path) -> None:
    ids = tokenizer(" и в и")["input_ids"]
    found = new_tokens_written(Writer(ids), tokenizer, ["x"], set(ids))
    assert (found.share, found.taken) == (1.0, 1.0)


def test_prompts_written_together_are_continued_as_each_alone(tokenizer: Any, tmp_path: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model", chat=False)).eval()
    prompts = ["и", "в доме было тихо, и никто не", "x y z"]
    alone = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        alone.append(model.generate(ids, do_sample=False, max_new_tokens=48)[0, ids.shape[1] :].tolist())
    new = {token for answer in alone for token in answer[::3]}
    found = new_tokens_written(model, tokenizer, prompts, new)
    written = sum(map(len, alone))
    assert found.share == pytest.approx(sum(token in new for answer in alone for token in answer) / written)
