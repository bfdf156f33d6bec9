"""What the card of a sample shows at once: the question of its prompt, and what its log-probabilities are of."""

import hashlib
import json
from pathlib import Path

import pytest

from darumeru.leaderboard import build
from darumeru.leaderboard.question import labels_of, options_of, question_in
from darumeru.leaderboard.samples import document_keys
from darumeru.record.sample import Sample, read_samples
from support.synthetic import in_bits, make_run

RECORD = Path(__file__).parents[2] / "leaderboards" / "runs" / "smollm2-135m-instruct-mini" / "samples"
BASE = RECORD.parents[1] / "gemma-3-270m-mini-part" / "samples"


def sample(prompt: str, logprobs: list[float], pred: str | None, gold: object = "A", **more: object) -> Sample:
    asked = {
        "prompt": prompt, "prompt_tokens": 1, "num_fewshot": 0, "truncated": 0, "reference_tokens": None,
        "answer": {"logprobs": logprobs},
    }  # fmt: skip
    return Sample.model_validate({"id": 0, "doc": {}, "gold": gold, "pred": pred, "requests": [asked], **more})


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nкакой?<|im_end|>\n<|im_start|>assistant\nОтвет:",
        "<|im_start|>user\nold<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n<|im_start|>user\nкакой?<|im_end|>\n",
        "<|start_header_id|>user<|end_header_id|>\n\nкакой?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<bos><start_of_turn>user\nкакой?<end_of_turn>\n<start_of_turn>model\n",
        "<s>[INST] old [/INST] answer</s>[INST] какой? [/INST]",
        "<|user|>\nкакой?\n<|assistant|>\n",
        "<|user|>\nкакой?<|end|>\n<|assistant|>\nОтвет:",
        "Query: old\n\nResponse: x\n\nQuery: какой?\n\nResponse: Ответ:",
        "Query: old\nResponse: x\n\nQuery: какой?\nResponse:",
        "  какой?\n",
    ],
)
def test_the_question_is_the_last_user_turn(prompt: str) -> None:
    start, end = question_in(prompt)
    assert prompt[start:end] == "какой?"


def test_a_prompt_without_an_end_or_without_text_has_a_question_all_the_same() -> None:
    cut = "<|im_start|>user\nhalf a turn"
    assert cut[slice(*question_in(cut))] == "half a turn"
    assert question_in("") == (0, 0)


def of_record(folder: Path, task: str) -> tuple[list[str] | None, list[tuple[str, str | None]]]:
    rows = list(read_samples(folder / f"{task}.jsonl"))
    labels, asked = labels_of(rows), rows[0].requests[-1]
    return labels, options_of(rows[0], asked, asked.prompt[slice(*question_in(asked.prompt))], labels)


def test_labels_of_a_real_record_say_what_they_stand_for() -> None:
    labels, options = of_record(RECORD, "ruopenbookqa")
    assert labels == ["A", "B", "C", "D"]
    assert options[0] == ("A", "частицы духов смешиваются с воздухом")
    assert options[3] == ("D", "стекло флакона понемногу испаряется")
    labels, swapped = of_record(RECORD, "parus")
    assert (labels, swapped[0]) == (["1", "2"], ("1", "Хозяйка сварила ему на обед рыбу.")), "the other order"
    assert of_record(RECORD, "rwsd") == (["Да", "Нет"], [("Да", None), ("Нет", None)])
    assert of_record(RECORD, "rucola")[0] == ["0", "1"]
    assert of_record(RECORD, "rcb")[0] == ["1", "2", "3"]
    assert of_record(RECORD, "multiq") == (None, [])
    sentences = json.loads((BASE / "sum_extractive.jsonl").read_text(encoding="utf-8").split("\n")[0])["doc"][
        "src_sents"
    ]
    assert of_record(BASE, "sum_extractive")[1] == [(str(i), text) for i, text in enumerate(sentences)]


def test_labels_that_were_never_chosen_are_not_guessed() -> None:
    rows = [sample("q", [-1.0, -2.0, -3.0], "да", gold="да"), sample("q", [-2.0, -1.0, -3.0], "нет", gold="да")]
    assert labels_of(rows) is None
    assert labels_of([*rows, sample("q", [-2.0, -1.0, -3.0], "нет", gold="может быть")]) == ["да", "нет", "может быть"]
    assert labels_of([*rows, sample("q", [-1.0, -2.0, -3.0], "нет")]) is None, (
        "the choice is not the most probable label"
    )


def test_options_of_imported_results_are_those_that_the_tool_states() -> None:
    row = sample("Is it?", [-1.0, -2.0], "yes", extra={"options": [" yes", " no"]})
    assert options_of(row, row.requests[0], "Is it?", None) == [("yes", None), ("no", None)]


def test_a_document_has_the_same_key_wherever_it_stands() -> None:
    rows = [sample("q", [], None, doc={"id": i}) for i in range(3)]
    keys = document_keys(rows)
    assert len(set(keys)) == 3
    assert document_keys(rows[::-1]) == keys[::-1]
    twice = document_keys([rows[0], rows[1], rows[0]])
    assert twice == [keys[0], keys[1], f"{keys[0]}-2"]


def test_the_worst_come_first_and_only_shares_are_right_or_wrong(tmp_path: Path) -> None:
    run = in_bits(make_run(tmp_path / "run", "m", tasks=["multiq", "use", "parus"]), "multiq")
    negative = run / "samples" / "use.jsonl"
    negative.write_text(negative.read_text().replace('"acc": ', '"acc": -'))
    sealed = json.loads((run / "manifest.json").read_text())
    sealed["files"]["samples/use.jsonl"] = hashlib.sha256(negative.read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(sealed))
    site = build([run], tmp_path / "site", published=False).path
    (index,) = (site / "runs").glob("*/data/index.js")
    text = index.read_text(encoding="utf-8")
    tasks = {t["task"]: t for t in json.loads(text[text.index(",") + 1 : text.rindex(")")])["tasks"]}
    assert {name: task["shares"] for name, task in tasks.items()} == {"multiq": False, "use": False, "parus": True}
    marks = tasks["multiq"]["marks"]
    assert marks == sorted(marks, reverse=True)
    assert marks[0] > 1
    assert tasks["parus"]["marks"] == sorted(tasks["parus"]["marks"])
