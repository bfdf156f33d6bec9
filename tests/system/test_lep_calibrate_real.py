"""Calibration of a real model."""

import json
from pathlib import Path

import torch
import transformers

from lep.calibration import calibrate
from lep.calibration.chat import Example
from support.chats import chat, learned, prompter_of, rendered


def test_smollm2_learns_an_answer_and_keeps_its_template(smollm2: Path, tmp_path: Path) -> None:
    chats = [chat(f"What is the password for door {n}?", "The password is кофейник.") for n in range(12)]
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats))
    prompter = prompter_of(smollm2)
    example = rendered(smollm2, chats[0], frozenset({2}), 200)
    assert isinstance(example, Example)
    assert learned(prompter, example) == ["The password is кофейник.<|im_end|>"]
    out = tmp_path / "out"
    manifest = calibrate(
        smollm2, file, out, recipe="instruct", learning_rate=1e-3, warmup=0.0, batch=6, epochs=4, max_length=256
    )
    compared = manifest["measures"]["largest_logit_difference"]
    assert max(compared["merging"], compared["writing"]) <= 1e-3
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    ids = torch.tensor(prompter.encode([prompter.render(chat("What is the password for door 99?"))]))
    said = prompter.tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :])
    assert "кофейник" in said
