"""Documents that are longer than a model's context: they are left out and named, and cost nothing but themselves."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import darumeru
from darumeru.errors import UserError
from support.checkpoints import checkpoint, watch_once
from support.tiny import make_model

SHORT = "Кот спит на окне, собака бежит домой."
LONG = "Слово за слово, и вышло так много слов, что контексту их не вместить. " * 20


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model with a context of 400 tokens."""
    return make_model(tmp_path_factory.mktemp("narrow") / "narrow", chat=False, context=400)


def corpus(folder: Path, *texts: str) -> Path:
    """Texts, each a document."""
    from darumeru.files import dumps

    folder.mkdir(exist_ok=True)
    file = folder / "texts.jsonl"
    file.write_text("".join(dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def evaluate(model: Path, output: Path, texts: Path, *tasks: str) -> darumeru.Run:
    return darumeru.evaluate(
        model, output=output, engine="hf", data="mini", tasks=tasks, corpus=texts, limit=4, num_fewshot=0
    )


def test_a_long_text_is_left_out_and_named(narrow: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = evaluate(narrow, tmp_path / "runs", corpus(tmp_path / "a", SHORT, LONG, SHORT + "!"), "bpb_corpus", "rwsd")
    assert run.complete
    assert not run.scores.failed
    assert run.header.tasks["bpb_corpus"].left_out == [1]
    assert run.header.tasks["bpb_corpus"].documents == 2
    assert run.header.tasks["rwsd"].left_out is None
    assert [row.doc["text"] for row in run.samples("bpb_corpus")] == [SHORT, SHORT + "!"]
    assert "Of task 'bpb_corpus' 1 of 3 documents are left out: the prompt has " in caplog.text
    assert "the context of the model holds 400 (bpb_corpus/1/0)" in caplog.text
    without = evaluate(narrow, tmp_path / "runs", corpus(tmp_path / "b", SHORT, SHORT + "!"), "bpb_corpus")
    assert run.scores.tasks["bpb_corpus"].score.value == without.scores.tasks["bpb_corpus"].score.value


def test_a_task_without_a_document_that_fits_fails_alone(narrow: Path, tmp_path: Path) -> None:
    texts = corpus(tmp_path / "a", LONG)
    run = evaluate(narrow, tmp_path / "runs", texts, "bpb_corpus", "rwsd")
    assert not run.complete
    assert set(run.scores.tasks) == {"rwsd"}
    assert "no document fits the model: the prompt has" in run.scores.failed["bpb_corpus"]
    with pytest.raises(UserError, match=r"Nothing is left to evaluate\. bpb_corpus: no document fits the model"):
        evaluate(narrow, tmp_path / "runs", texts, "bpb_corpus")


def test_a_watch_takes_the_scores_that_there_are(narrow: Path, tmp_path: Path) -> None:
    """The text will not fit the next time either; before, each checkpoint was tried three times and left out."""
    checkpoint(narrow, tmp_path / "t", 10)
    asked = {"tasks": ("bpb_corpus", "rwsd_tenth"), "corpus": corpus(tmp_path / "a", LONG), "device": "cpu"}
    outcome = watch_once(tmp_path / "t", **asked)
    assert not outcome.failed
    # The mean is of the shares: bits per byte would not be in it either.
    assert [set(p.values) & {"rwsd_tenth", "bpb_corpus", "micro_avg"} for p in outcome.points] == [
        {"rwsd_tenth", "micro_avg"}
    ]


def test_a_task_that_fails_for_another_reason_is_no_point(narrow: Path, tmp_path: Path) -> None:
    """A text that was left out does not excuse the others, whose log-probabilities are NaN."""
    weights = checkpoint(narrow, tmp_path / "t", 10) / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, weights, {"format": "pt"})
    outcome = watch_once(
        tmp_path / "t", tasks=("bpb_corpus",), corpus=corpus(tmp_path / "a", SHORT, LONG), device="cpu"
    )
    assert set(outcome.failed) == {10}
    assert not outcome.points
