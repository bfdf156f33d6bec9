"""Task files of users: what a file says is heeded or refused, and its words come where they belong."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from darumeru.errors import UserError
from darumeru.files import dumps
from darumeru.inference.prompt import Limits, Prompter
from darumeru.task import DarumeruTask
from darumeru.task.suite import Catalogue, read_wording

PLAIN: dict[str, Any] = {
    "dataset_path": "someone/mood",
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "Отзыв: {{text}}",
    "doc_to_choice": ["нет", "да"],
    "doc_to_target": "{{label}}",
    "metadata": {"version": 1.0, "darumeru": {"primary": ["acc"]}},
}


def load(folder: Path, kind: str = "ChoiceTask", **keys: Any) -> DarumeruTask:
    """A task of a user's, with rows in a bundle."""
    (folder / "bundle" / "mood").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = [{"text": f"{split} {i}", "label": "нет" if i % 2 else "да", "kind": "фильм"} for i in range(4)]
        (folder / "bundle" / "mood" / f"{split}.jsonl").write_text("".join(dumps(r) + "\n" for r in rows), "utf-8")
    text = yaml.safe_dump({"task": "mood", **PLAIN, **keys}, allow_unicode=True)
    (folder / "mood.yaml").write_text(f"class: !function darumeru.task.{kind}\n{text}", "utf-8")
    return Catalogue([folder]).load(["mood"], str(folder / "bundle"))["mood"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"process_docs": "x"}, r"'mood': lm-eval's key 'process_docs' is not supported: prepare the rows"),
        ({"metric_list": [{"metric": "acc"}]}, r"'metric_list' is not supported: metrics are those of the class"),
        ({"training_split": "train"}, r"'training_split' .*`fewshot_split` names the split"),
        ({"num_fewshot": 2}, r"num_fewshot: 2 is not supported.*--num-fewshot"),
        ({"doc_to_txt": "x"}, r"Unknown key of task 'mood' 'doc_to_txt'.*doc_to_text"),
        ({"doc_to_choice": "{{[1, 2]}}"}, r"doc_to_choice: '{{\[1, 2\]}}' is no list of labels"),
        ({"generation_kwargs": {"max_gen_toks": 9, "until": ["."]}}, r"'until' .*`metadata: darumeru: until`"),
        ({"generation_kwargs": {"max_gen_toks": 9, "do_sample": True}}, r"'do_sample' is not supported.*--temperature"),
        ({"generation_kwargs": {"max_gen_toks": 9, "temperature": 0.7}}, r"'temperature' is not supported"),
        ({"generation_kwargs": {"max_tokens": 9}}, r"'max_tokens' is not supported: only max_gen_toks is"),
        ({"gen_prefix": "Ответ {{label"}, r"Task 'mood': gen_prefix is no valid Jinja template: .* \(line 1\)"),
        ({"doc_to_text": 5}, r"doc_to_text: 5 is no text"),
    ],
)
def test_what_would_be_passed_over_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, **keys)


def test_what_says_the_same_is_taken(tmp_path: Path) -> None:
    greedy = {"max_gen_toks": 9, "do_sample": False, "temperature": 0.0}
    for _ in range(2):  # lm-eval writes its own `until` into what it is given
        scored = {"version": 1.0, "darumeru": {"primary": ["score"]}}
        task = load(tmp_path, "GenerateTask", generation_kwargs=greedy, tag="mine", metadata=scored)
        (query,) = task.queries({"text": "Да"})
        assert (query.max_tokens, query.until) == (9, ())


@pytest.mark.parametrize("mode", ["instruct", "foundation"])
@pytest.mark.parametrize("shots", [0, 2])
def test_a_description_stands_once_before_everything(mode: Any, shots: int, tiny_chat: Path, tmp_path: Path) -> None:
    task = load(tmp_path, description="Оцени, каков {{kind}}.", gen_prefix="Вот ({{text[-1]}}):")
    prompter = Prompter(AutoTokenizer.from_pretrained(tiny_chat), mode, Limits())
    doc = task.docs()[3]
    [request] = prompter.requests([("mood/3/0", task.asked(doc)[0], task.fewshot(doc, shots))])
    first = {"instruct": "<s><|system|>\n", "foundation": ""}[mode]
    assert request.text.startswith(first + "Оцени, каков фильм.")
    assert request.text.count("Оцени") == 1
    assert request.text.count("Отзыв: train") == shots
    assert request.text.endswith("Вот (3):")
    assert ("Вот (0): да" in request.text) == bool(shots)


def test_a_description_of_a_wording_stands_once_too(tiny_chat: Path, tmp_path: Path) -> None:
    """Also of a task whose rows bring their own turns, and of one whose earlier turns are dropped to fit."""
    words = tmp_path / "w.yaml"
    words.write_text("parus: {description: Решай.}\nrutie: {description: Решай.}\n", "utf-8")
    tasks = Catalogue().load(["parus", "rutie"], "mini", read_wording(words))
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat)
    parus, rutie = tasks["parus"], tasks["rutie"]
    doc = parus.docs()[0]
    turns = max(rutie.docs(), key=lambda d: int(d["meta"]["question_id"]))
    whole = Prompter(tokenizer, "instruct", Limits()).requests([("rutie/0/0", rutie.asked(turns)[0], [])])[0]
    room = Limits(whole.prompt_tokens - 5)
    requests = [
        *Prompter(tokenizer, "instruct", Limits()).requests(
            [("parus/0/0", parus.asked(doc)[0], parus.fewshot(doc, 3))]
        ),
        *Prompter(tokenizer, "instruct", room).requests([("rutie/0/0", rutie.asked(turns)[0], [])]),
    ]
    assert requests[0].num_fewshot == 3
    assert requests[1].prompt_tokens < whole.prompt_tokens - 5
    assert not requests[1].truncated
    for request in requests:
        assert request.text.startswith("<s><|system|>\nРешай.")
        assert request.text.count("Решай.") == 1


@pytest.mark.parametrize("key", ["doc_to_text", "headline", "description", "gen_prefix", "doc_to_target"])
def test_a_slip_in_a_wording_names_task_and_key(key: str, tmp_path: Path) -> None:
    words = tmp_path / "w.yaml"
    words.write_text(f"rucola: {{{key}: '{{% if sentence %}}x'}}\n", "utf-8")
    with pytest.raises(UserError, match=rf"Task 'rucola': {key} is no valid Jinja template: .*--wording"):
        Catalogue().load(["rucola"], "mini", read_wording(words))


def test_a_template_that_asks_for_what_it_must_not_is_a_fault_of_the_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Task 'mood': .* row 1: .*unsafe"):
        load(tmp_path, doc_to_text="{{ ''.__class__.__mro__ }}").docs()


def test_a_task_that_a_suite_of_ones_own_misspells(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [rucola, paruss]\nmetadata: {version: 1.0}\n", "utf-8")
    catalogue = Catalogue([tmp_path])
    with pytest.raises(UserError, match=r"Unknown task 'paruss'\. Did you mean 'parus'"):
        catalogue.load(catalogue.suite("mine").tasks, "mini")


def test_the_likelihood_of_a_tenth_of_mmlu(tmp_path: Path) -> None:
    task = Catalogue().load(["mmlu_ru_tenth"], "mini", likelihood=True)["mmlu_ru_tenth"]
    assert [q.kind for q in task.asked(task.docs()[0])] == ["likelihood"]
