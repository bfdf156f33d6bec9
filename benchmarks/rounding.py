"""What rounding leaves of a short LoRA training: to the nearest bfloat16, and without a bias (`lep.model.rounding`).

    python benchmarks/rounding.py --model DIR --prompts FILE [--steps 25]

DIR holds SmolLM2-135M-Instruct or another small model to chat with; FILE has instructions with answers. The model is trained
in float32 as `lep calibrate train --recipe instruct` does, and kept in float32. Then every weight is rounded both ways. For
each: the share of the change in the layers' matrices that is left (projection on the change: 1 is all of it), the loss on the
first 16 examples, and the largest and the mean difference of logits from the float32 model's. Results go to
benchmarks/results/rounding.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

import lep
from lep.model.rounding import generator_for, round_unbiased

RESULTS = Path(__file__).parent / "results" / "rounding.json"
TOKENS = 256


def float32_copy(model: Path, place: Path) -> Path:
    """The model with every weight in float32."""
    shutil.copytree(model, place, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return place


def texts(chats: Path, tokenizer: Any) -> list[tuple[torch.Tensor, int]]:
    """Token ids of the first examples, and where the answer begins."""
    found = []
    for line in chats.read_text(encoding="utf-8").splitlines()[:16]:
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, return_dict=False)
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        found.append((torch.tensor([whole[:TOKENS]]), len(asked)))
    return found


@torch.inference_mode()
def measure(model: Any, examples: list[tuple[torch.Tensor, int]]) -> tuple[float, list[torch.Tensor]]:
    """Mean loss of the answers' tokens, and the logits (tokens, |V|) of the first four examples."""
    logits = [model(input_ids=ids).logits[0] for ids, _ in examples]
    losses = [
        torch.nn.functional.cross_entropy(found[start - 1 : -1], ids[0, start:], reduction="none")
        for found, (ids, start) in zip(logits, examples, strict=True)
    ]
    return float(torch.cat(losses).mean()), logits[:4]


def main() -> None:
    """Train, round both ways, print and write what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        before = float32_copy(options.model, place / "before")
        lep.make_data(None, [options.prompts], place / "chats.jsonl", answers=True)
        settings = {"train_embeddings": True, "learning_rate": 2e-4, "batch": 4, "max_length": 384}
        lep.calibrate(
            before, place / "chats.jsonl", place / "after", recipe="instruct", max_steps=options.steps, **settings
        )  # type: ignore[arg-type]
        old, model = (
            transformers.AutoModelForCausalLM.from_pretrained(place / folder, dtype=torch.float32).eval()
            for folder in ("before", "after")
        )
        examples = texts(place / "chats.jsonl", transformers.AutoTokenizer.from_pretrained(before))
        old_loss, _ = measure(old, examples)
    trained = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss, logits = measure(model, examples)
    result: dict[str, Any] = {
        "steps": options.steps,
        "settings": settings,
        "loss before": old_loss,
        "loss in float32": loss,
    }
    ways = {
        "nearest": lambda value, _: value.bfloat16(),
        "unbiased": lambda value, name: round_unbiased(value, torch.bfloat16, generator_for(name)),
    }
    print(f"loss before {old_loss:.4f}, after {options.steps} steps in float32 {loss:.4f}")
    for way, rounded in ways.items():
        kept = total = 0.0
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(rounded(trained[name], name).float())
                if parameter.dim() == 2 and ".layers." in name:
                    change, left = trained[name] - old.get_parameter(name), parameter - old.get_parameter(name)
                    kept += float((change * left).sum())
                    total += float((change * change).sum())
        loss, found = measure(model, examples)
        differences = [(a - b).abs() for a, b in zip(logits, found, strict=True)]
        result[way] = {
            "change left": kept / total,
            "loss": loss,
            "largest logit difference": max(float(d.max()) for d in differences),
            "mean logit difference": sum(float(d.mean()) for d in differences) / len(differences),
        }
        print(way, {key: round(value, 4) for key, value in result[way].items()})
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
