"""An evaluation inside a training of two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from darumeru.record.run import find_runs

DISTRIBUTED = """
import json, sys
from pathlib import Path
import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator)
from darumeru.watch import DarumeruCallback, StopFileCallback
model, folder = sys.argv[1:]
rows = torch.randint(6, 600, (64, 32), generator=torch.Generator().manual_seed(0)).tolist()
for evaluate in ("no", "yes"):
    torch.manual_seed(1)
    output = Path(folder) / f"t-{evaluate}"
    trainer = Trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        TrainingArguments(output_dir=str(output), max_steps=8, per_device_train_batch_size=2, learning_rate=1e-3, save_steps=100,
                          report_to=[], use_cpu=True, disable_tqdm=True, seed=3, gradient_checkpointing=True, save_total_limit=2),
        train_dataset=[{"input_ids": r, "labels": r} for r in rows], processing_class=AutoTokenizer.from_pretrained(model),
        data_collator=default_data_collator,
    )
    if evaluate == "yes":
        DarumeruCallback(every=2, runs=Path(folder) / "runs", tasks=("bpb_ru", "rwsd_tenth"), limit=2, num_fewshot=0,
                         keep_best="bpb_ru", rules=["bpb_ru > 0 for 3"], at_start=False).attach(trainer)
        trainer.add_callback(StopFileCallback(every=2))
    else:
        trainer.args.max_steps = 8
        class Stop(__import__("transformers").TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop |= state.global_step == 6
        trainer.add_callback(Stop())
    trainer.train()
    rank = trainer.args.process_index
    found = {"step": trainer.state.global_step, "sum": [p.double().sum().item() for p in trainer.model.parameters()]}
    (output / f"rank{rank}.json").write_text(json.dumps(found))
"""


def test_under_ddp_the_first_process_evaluates_and_all_stop_together(tiny_dropout: Path, tmp_path: Path) -> None:
    """Two processes: the rule stops both at one step, with the weights of a training that was stopped there without it."""
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(tmp_path / "train.py"),
        str(tiny_dropout), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        way: [json.loads((tmp_path / f"t-{way}" / f"rank{r}.json").read_text()) for r in (0, 1)]
        for way in ("no", "yes")
    }
    assert found["yes"] == found["no"]
    assert found["yes"][0]["step"] == 6
    runs = find_runs(tmp_path / "runs")
    assert sorted(r.header["training"]["step"] for r in runs) == [2, 4, 6]
    best = json.loads((tmp_path / "t-yes" / "best.json").read_text())
    assert (tmp_path / "t-yes" / best["checkpoint"] / "model.safetensors").is_file()
