"""The pipeline from one file: what is run, what is run again, what is refused, and what the report says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from darumeru.errors import DarumeruError, UserError
from lep import cli
from lep.pipeline import estimate, load_recipe, plan, report, run_recipe
from lep.pipeline.recipe import SCHEMA, SHIPPED, Top
from lep.pipeline.stages import pretrain, vocab
from support.pipeline import make_inputs, texts, todo, words, write_recipe

pytestmark = pytest.mark.xdist_group("pipeline")  # one study serves most of them


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, texts and a recipe beside them."""
    return make_inputs(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def study(inputs: Path) -> Path:
    """The output of the whole pipeline."""
    output = inputs / "out"
    said: list[str] = []
    page = run_recipe(load_recipe(inputs / "recipe.yaml"), output, say=said.append)
    assert page == output / "report" / "index.html"
    assert [line.split(" ")[0] for line in said] == [
        "vocab", "init", "pretrain", "instruct-data", "instruct", "propagate-conversion", "propagate-swap", "calibrate-data",
        "calibrate", "run-instruct", "text-instruct", "run-instruct-conversion", "text-instruct-conversion",
        "run-instruct-swap", "text-instruct-swap", "run-calibrated", "text-calibrated", "chats", "speed", "examples", "report",
    ]  # fmt: skip
    return output


# -- the whole --------------------------------------------------------------------------------------------------------


def test_the_report_states_what_the_stages_measured(study: Path) -> None:
    report = json.loads((study / "report" / "report.json").read_text())
    texts_of = report["vocabulary"]["texts"]
    assert texts_of["ru"]["after"]["symbols_per_token"] > texts_of["ru"]["before"]["symbols_per_token"]
    assert texts_of["en"]["after"]["tokens"] == texts_of["en"]["before"]["tokens"]
    models = {m["id"]: m for m in report["models"]}
    assert list(models) == ["instruct", "instruct-conversion", "instruct-swap", "calibrated"]
    assert (models["instruct"]["tokens"], models["calibrated"]["tokens"], models["calibrated"]["new_tokens"]) == (
        600,
        660,
        60,
    )
    for model in models:
        assert set(report["held_out"][model]) == {"ru", "en"}
        assert report["held_out"][model]["ru"]["bits_per_byte"] > 0
        assert (report["held_out"][model]["ru"]["share_of_new_tokens"] is None) == (model == "instruct")
    manifest = json.loads((study / "instruct-ru-conversion" / "lep.json").read_text())["measures"]
    assert report["maps"]["conversion"]["embedding"] == manifest["embedding"]
    assert manifest["embedding"]["distance_from_identity"] > 0
    assert report["maps"]["swap"]["embedding"]["map"] == "identity"
    assert report["trainings"]["pretrain"]["steps"] == 4
    assert report["trainings"]["calibrate"]["examples"] == 8
    assert report["benchmark"]["models"]["calibrated"]["differences"]
    assert report["benchmark"]["models"]["instruct"]["differences"] == []
    assert set(report["writing"]["models"]) == {"instruct", "instruct-conversion", "calibrated"}
    assert list(report["examples"]["answers"]) == ["instruct", "instruct-conversion", "calibrated"]
    assert list(report["chats"]["models"]) == ["instruct", "instruct-conversion", "instruct-swap", "calibrated"]
    page = (study / "report" / "report.md").read_text()
    assert f"{report['chats']['models']['calibrated']['chat_bits_per_byte']:.4f}" in page
    assert f"{manifest['embedding']['distance_from_identity']:.4f}" in page
    assert f"{report['held_out']['calibrated']['ru']['bits_per_byte']:.4f}" in page
    assert "made for this study" in page
    board = json.loads((study / "leaderboard" / "table.json").read_text())
    assert board["baseline"] == "instruct (original)"
    assert len(board["rows"]) == 4


def test_replayed_texts_are_told_without_the_folders_of_this_machine(inputs: Path) -> None:
    file = inputs / "held-en.jsonl"
    told = report._settings(load_recipe(inputs / "recipe.yaml", [f"pretrain.replay={file}=0.2"]))
    assert told["pretrain"]["replay"] == ["held-en.jsonl=0.2"]
    assert str(inputs) not in json.dumps(told)


def test_names_and_texts_are_no_markup(study: Path) -> None:
    page = (study / "report" / "index.html").read_text()
    assert "tiny &lt;b&gt;study&lt;/b&gt; | 1" in page
    assert "&lt;script&gt;дом" in page
    assert "<b>study" not in page
    assert "<script>дом" not in page
    assert str(study.parent) not in page + (study / "report" / "report.json").read_text()
    markdown = (study / "report" / "report.md").read_text()
    assert r"tiny \<b\>study\</b\> \| 1" in markdown
    assert all(line.startswith("    ") for line in markdown.splitlines() if "<script>" in line)


def test_nothing_is_run_twice_and_a_report_is_written_again_from_what_was_measured(inputs: Path, study: Path) -> None:
    shutil.rmtree(study / "report")
    said: list[str] = []
    run_recipe(load_recipe(inputs / "recipe.yaml"), study, say=said.append)
    assert said == ["report"]
    assert (study / "report" / "index.html").is_file()


EVALUATIONS = {
    f"{kind}-{model}" for kind in ("run", "text") for model in ("instruct-conversion", "instruct-swap", "calibrated")
}
LAST = {"run-calibrated", "text-calibrated", "chats", "speed", "examples"}
PROPAGATED = {"propagate-conversion", "propagate-swap", "calibrate", *EVALUATIONS, "chats", "speed", "examples"}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("report.examples=[Кто ты]", {"examples"}),
        ("report.chat_characters=20", {"chats"}),
        ("evaluate.limit=3", {"run-instruct", *(name for name in EVALUATIONS if name.startswith("run"))}),
        ("report.characters=200", {"text-instruct", *(name for name in EVALUATIONS if name.startswith("text"))}),
        ("calibrate.train.learning_rate=0.001", {"calibrate", *LAST}),
        ("calibrate.data.copy=5", {"calibrate-data", "calibrate", *LAST}),
        ("calibrate.train.save_every=7", set()),
        ("pretrain.save_steps=3", set()),
        ("pretrain.learning_rate=0.001", {"pretrain", *PROPAGATED}),
        ("pretrain.keep_best=bits_per_byte_ru", {"pretrain", *PROPAGATED}),
        ("init.strategy=weighted", {"init", "pretrain", *PROPAGATED}),
        ("vocab.extend.add=50", {"vocab", "init", "pretrain", *PROPAGATED}),
        ("propagate.methods=[swap]", {"calibrate", *LAST}),
        ("instruct.train.max_steps=2", {"instruct", "run-instruct", "text-instruct", *PROPAGATED}),
    ],
)  # fmt: skip
def test_a_changed_setting_runs_exactly_what_depends_on_it(
    inputs: Path, study: Path, change: str, again: set[str]
) -> None:
    assert set(todo(inputs, study, change)) == again


def test_a_changed_text_runs_what_reads_it(inputs: Path, study: Path, tmp_path: Path) -> None:
    longer = texts(tmp_path / "ru.jsonl", words("Cyrillic"), 81, seed=0)
    # Texts to copy may not overlap with the corpus: they are drawn again, too.
    assert set(todo(inputs, study, f"corpus={longer}")) == {"vocab", "init", "pretrain", "calibrate-data", *PROPAGATED}
    other = texts(tmp_path / "held-en.jsonl", words("Latin"), 7, seed=3)
    measured = {"text-instruct", *(name for name in EVALUATIONS if name.startswith("text")), "speed"}
    assert set(todo(inputs, study, f"held_out.en={other}")) == measured


def test_what_changed_is_made_anew_and_the_rest_stays(inputs: Path, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    before = (output / "base-ru" / "lep.json").stat().st_mtime_ns
    old = json.loads((output / "report" / "report.json").read_text())
    said: list[str] = []
    recipe = load_recipe(inputs / "recipe.yaml", ["calibrate.train.max_steps=1"])
    assert run_recipe(recipe, output, say=said.append, last="calibrate") is None
    assert [line.split(" ")[0] for line in said] == ["calibrate"]
    assert run_recipe(recipe, output, say=said.append, only="evaluate") is not None
    assert {line.split(" ")[0] for line in said} == {"calibrate", *LAST, "report"}
    assert (output / "base-ru" / "lep.json").stat().st_mtime_ns == before
    new = json.loads((output / "report" / "report.json").read_text())
    assert (old["trainings"]["calibrate"]["steps"], new["trainings"]["calibrate"]["steps"]) == (2, 1)
    assert len(json.loads((output / "leaderboard" / "table.json").read_text())["rows"]) == 4
    # A lost output is made again; what was made from it is there.
    shutil.rmtree(output / "instruct-ru-swap")
    states = {s.step.name: s for s in plan(recipe, output)}
    assert {name for name, state in states.items() if state.todo} == {"propagate-swap"}
    assert states["propagate-swap"].why == "instruct-ru-swap is gone"


def test_a_finished_training_stays_when_what_it_began_with_is_deleted(
    inputs: Path, study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    shutil.rmtree(output / "base-ru0")  # nothing reads it any more
    checkpoints = {path.name for path in (output / "base-ru" / "checkpoints").glob("checkpoint-*")}
    said: list[str] = []
    assert run_recipe(load_recipe(inputs / "recipe.yaml"), output, say=said.append) is not None
    assert said == ["report"]
    assert {path.name for path in (output / "base-ru" / "checkpoints").glob("checkpoint-*")} == checkpoints != set()
    # It is made again for a step that begins with it.
    assert todo(inputs, output, "pretrain.learning_rate=0.001")[:2] == ["init", "pretrain"]
    # Lost, the vocabulary is made again, which the report reads; the training is not.
    shutil.rmtree(output / "tokenizer")
    assert todo(inputs, output) == ["vocab"]


def test_another_choice_of_a_checkpoint_trains_nothing(inputs: Path, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    states = sorted((output / "base-ru" / "checkpoints").glob("*/trainer_state.json"))
    before = [path.stat().st_mtime_ns for path in states]
    recipe = load_recipe(inputs / "recipe.yaml", ["pretrain.keep_best=bits_per_byte_ru"])
    run_recipe(recipe, output, only="pretrain")
    assert [path.stat().st_mtime_ns for path in states] == before != []
    manifest = json.loads((output / "base-ru" / "lep.json").read_text())
    assert manifest["measures"]["best_checkpoint"] in {path.parent.name for path in states}
    assert "pretrain" not in todo(inputs, output, "pretrain.keep_best=bits_per_byte_ru")


def test_a_training_whose_manifest_is_gone_goes_on_from_its_checkpoints(
    inputs: Path, study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    trained = output / "base-ru" / "checkpoints" / "checkpoint-4" / "model.safetensors"
    before = trained.stat().st_mtime_ns
    (output / "base-ru" / "lep.json").unlink()
    said: list[str] = []
    run_recipe(load_recipe(inputs / "recipe.yaml"), output, say=said.append)
    assert [line.split(" ")[0] for line in said] == ["pretrain", "report"]
    assert trained.stat().st_mtime_ns == before


def test_a_training_that_was_run_alone_is_taken_over_if_it_is_this_one(
    inputs: Path, study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    (output / "stages" / "pretrain.json").unlink()
    trained = output / "base-ru" / "model.safetensors"
    before = trained.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"holds a training with other settings .*max_steps 4 there, 3 now"):
        run_recipe(load_recipe(inputs / "recipe.yaml", ["pretrain.max_steps=3"]), output, only="pretrain")
    run_recipe(load_recipe(inputs / "recipe.yaml"), output, only="pretrain")
    assert trained.stat().st_mtime_ns == before
    assert "pretrain" not in todo(inputs, output)


def test_a_control_is_one_step_more_and_leads_the_report(inputs: Path, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(study, output, symlinks=True)
    assert todo(inputs, output, "pretrain.control=true") == ["control"]
    run_recipe(load_recipe(inputs / "recipe.yaml", ["pretrain.control=true"]), output)
    manifest = json.loads((output / "base-ru-control" / "lep.json").read_text())
    assert manifest["inputs"]["model"]["name"] == "base"
    assert todo(inputs, output, "pretrain.control=true") == []
    report = json.loads((output / "report" / "report.json").read_text())
    assert set(report["adaptation"]["texts"]) == {"ru", "en"}
    page = (output / "report" / "index.html").read_text()
    assert page.index("What the vocabulary costs") < page.index("Vocabulary before and after")
    assert 'src="adaptation.svg"' in page
    assert (output / "report" / "adaptation.svg").is_file()
    with pytest.raises(UserError, match="nothing to compare with"):
        load_recipe(inputs / "recipe.yaml", ["pretrain.control=true", "pretrain.train=new-rows"])


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("calibrate.trian.batch=3", "Unknown key 'calibrate.trian'. Did you mean 'calibrate.train'"),
        ("calibrate.train.lora_rang=3", "Did you mean 'calibrate.train.lora_rank'"),
        ("instruct.data.prompt=x", "Did you mean 'instruct.data.prompts'"),
        ("pretrain.max_step=3", "Did you mean 'pretrain.max_steps'"),
        ("vocab.extend.ad=3", "Did you mean 'vocab.extend.add'"),
        ("evaluate.limits=3", "Did you mean 'evaluate.limit'"),
        ("corpu=x", "Did you mean 'corpus'"),
        ("vocab.swap.count=3", "vocab must have one of extend, optimize, swap, train, not extend, swap"),
        ("pretrain.max_steps=many", "pretrain.max_steps: 'many' is not possible"),
        ("pretrain.train=everything", "--train 'everything' is unknown"),
        ("propagate.methods=[magic]", "propagate.methods: 'magic' is not possible"),
        ("propagate.methods=[swap, swap]", "names a method twice"),
        ("calibrate.train.recipe=other", "calibrate.train.recipe: 'other' is not possible"),
        ("calibrate.train.batch=0", "calibrate.train: --batch: 0 is not possible"),
        ("calibrate.data=3", "calibrate.data: 3 is not possible"),
        ("corpus=[]", "corpus: [] is not possible"),
        ("novalue", "is not of the form KEY=VALUE"),
        ("report.examples=[", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named(inputs: Path, change: str, message: str) -> None:
    with pytest.raises((UserError, DarumeruError), match=re.escape(message)) as raised:
        load_recipe(inputs / "recipe.yaml", [change])
    assert getattr(raised.value, "exit_code", None) == 2


def test_a_recipe_must_be_one(tmp_path: Path, inputs: Path) -> None:
    with pytest.raises(
        UserError, match=r"one of those that come with lep: llama-3-8b-ru-optimized, llama-3.1-8b-ru, mistral"
    ):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="must be a mapping"):
        load_recipe(tmp_path / "list.yaml")
    with pytest.raises(UserError, match=r"corpus is missing\. Write it into the recipe, or give it with --set corpus="):
        load_recipe(write_recipe(tmp_path, corpus=None) and _without(tmp_path, "corpus"))


def _without(folder: Path, key: str) -> Path:
    file = folder / "recipe.yaml"
    content = yaml.safe_load(file.read_text())
    del content[key]
    file.write_text(yaml.safe_dump(content))
    return file


def test_inputs_and_foreign_folders_are_checked_before_anything_is_done(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*gone.jsonl.*--set corpus=FILE"):
        run_recipe(load_recipe(inputs / "recipe.yaml", ["corpus=[gone.jsonl]"]), tmp_path / "out")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match="no pipeline wrote"):
        run_recipe(load_recipe(inputs / "recipe.yaml"), foreign)
    assert [path.name for path in foreign.iterdir()] == ["letters.txt"]
    with pytest.raises(UserError, match="is the folder of the recipe 'other'"):
        (foreign / "pipeline.json").write_text('{"name": "other"}')
        run_recipe(load_recipe(inputs / "recipe.yaml"), foreign)
    # A folder of the study's that the pipeline did not write is not touched.
    (tmp_path / "out" / "tokenizer").mkdir()
    (tmp_path / "out" / "tokenizer" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="this pipeline did not make it"):
        run_recipe(load_recipe(inputs / "recipe.yaml"), tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer" / "mine.txt").read_text() == "mine"


def test_stages_are_chosen_by_name(inputs: Path, study: Path, tmp_path: Path) -> None:
    assert todo(inputs, tmp_path / "new", only="vocab") == ["vocab"]
    assert todo(inputs, tmp_path / "new", first="init", last="pretrain") == ["init", "pretrain"]
    with pytest.raises(DarumeruError, match="Did you mean 'pretrain'"):
        todo(inputs, study, only="pretraining")
    with pytest.raises(UserError, match="comes after"):
        todo(inputs, study, first="evaluate", last="vocab")
    with pytest.raises(UserError, match="leave out --from"):
        todo(inputs, study, only="vocab", last="vocab")
    with pytest.raises(UserError, match="init needs vocab, which is to be run first"):
        run_recipe(load_recipe(inputs / "recipe.yaml"), tmp_path / "new", first="init")


# -- the recipes that come with lep, and their costs ------------------------------------------------------------------


def config_only(folder: Path, kind: str, **sizes: Any) -> Path:
    """A model folder without weights: what is known of a model before it is fetched."""
    import transformers

    getattr(transformers, kind)(**sizes).save_pretrained(folder)
    return folder


def test_the_papers_recipes_are_planned_from_configurations_alone(
    tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llama = config_only(
        tmp_path / "llama", "LlamaConfig", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, dtype="bfloat16",
    )  # fmt: skip
    mistral = config_only(
        tmp_path / "mistral", "MistralConfig", vocab_size=32000, hidden_size=4096, intermediate_size=14336,
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, dtype="bfloat16",
    )  # fmt: skip
    cases = (
        ("llama-3-8b-ru-optimized", llama, 114_560, "optimize"),
        ("mistral-7b-ru-extended", mistral, 55_360, "extend"),
    )
    for name, base, rows, way in cases:
        changes = [f"base={base}", f"instruct={base}", "pretrain.max_steps=10"]
        recipe = load_recipe(name, changes)
        assert recipe[vocab].way == way
        assert (recipe[pretrain].total_batch_size, recipe[pretrain].block_size, recipe[pretrain].warmup_steps) == (
            256,
            1024,
            100,
        )
        states = plan(recipe, tmp_path / "out")
        found = estimate(recipe, tmp_path / "out", states, "h100")
        prices = {stage: price for stage, _, price in found.stages}
        # 4N + 6Vd with N = 6.98e9: arXiv 2412.21140's models, embeddings and head trained.
        tokens, flop = prices["pretrain"].tokens, prices["pretrain"].flop
        assert tokens == 10 * 256 * 1024
        assert flop == pytest.approx(tokens * (4 * 6.98e9 + 6 * rows * 4096), rel=1e-3)
        assert found.device.hours(flop) == pytest.approx(flop / (989e12 * 0.4) / 3600)
        # bfloat16: the layers, and an embedding and a head of the new size.
        assert (prices["init"].bytes or 0) == pytest.approx(2 * 2 * rows * 4096)
        assert any("texts/corpus.jsonl.zst" in sentence for sentence in found.missing)
        arguments = ["lep", "run", name, "--output", str(tmp_path / "out"), "--dry-run", "--device-name", "h100"]
        monkeypatch.setattr(sys, "argv", [*arguments, "--set", *changes])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert "propagate-conversion" in shown
        assert "Missing: the file texts/prompts.jsonl" in shown
        assert not (tmp_path / "out").exists()
    with pytest.raises(DarumeruError, match="Did you mean 'h100'"):
        estimate(recipe, tmp_path / "out", states, "h10")


def test_the_laptops_recipe_is_planned_and_its_texts_are_set_from_outside(inputs: Path, tmp_path: Path) -> None:
    recipe = load_recipe("smollm2-pair-ru", ["name=x"])
    found = estimate(recipe, tmp_path / "out", plan(recipe, tmp_path / "out"))
    assert any("package:smollm2" in sentence for sentence in found.missing)
    changes = [
        f"base={inputs / 'base'}", f"corpus={inputs / 'ru.jsonl'}", f"held_out.ru={inputs / 'held-ru.jsonl'}",
        f"held_out.en={inputs / 'held-en.jsonl'}", f"instruct.data.prompts={inputs / 'prompts.jsonl'}",
        f"calibrate.data.prompts={inputs / 'prompts.jsonl'}", f"calibrate.data.copy_corpus={inputs / 'copy.jsonl'}",
    ]  # fmt: skip
    recipe = load_recipe("smollm2-pair-ru", changes)
    assert recipe.top.corpus == (str(inputs / "ru.jsonl"),)
    found = estimate(recipe, tmp_path / "out", plan(recipe, tmp_path / "out"))
    assert found.missing == []
    assert all(
        price.tokens is not None for stage, _, price in found.stages if stage in ("instruct", "pretrain", "evaluate")
    )
    assert found.total.bytes and found.total.flop


def test_the_plan_warns_of_a_language_that_is_not_replayed(inputs: Path, tmp_path: Path) -> None:
    def notes(*changes: str) -> str:
        recipe = load_recipe(inputs / "recipe.yaml", changes)
        return " ".join(estimate(recipe, tmp_path, plan(recipe, tmp_path)).notes)

    assert "The held-out text en is in Latin script, and nothing like it is replayed" in notes()
    assert "nothing like it is replayed" not in notes("pretrain.train=new-rows")
    assert "nothing like it is replayed" not in notes(f"pretrain.replay={inputs / 'held-en.jsonl'}=0.25")


def test_tokens_of_a_corpus_are_counted(inputs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(inputs / "recipe.yaml", ["pretrain.max_steps=-1", "pretrain.num_train_epochs=2"])
    states = plan(recipe, tmp_path / "out", only="pretrain")
    tokens = estimate(recipe, tmp_path / "out", states).total.tokens
    from darumeru.data.texts import read_all
    from lep.tokenizer.vocabulary import Vocabulary

    vocabulary = Vocabulary.load(inputs / "base").tokenizer
    exact = sum(len(e.ids) for e in vocabulary.encode_batch(read_all([inputs / "ru.jsonl"]), add_special_tokens=False))
    assert tokens == pytest.approx(2 * exact, rel=0.02)


def test_the_template_has_every_key() -> None:
    file = SHIPPED / "template.yaml"
    recipe = load_recipe(file)
    assert recipe.top.name == "my-study"
    sections = dict(re.findall(r"^(\w+):(.*?)(?=^\w+:|\Z)", file.read_text(), re.MULTILINE | re.DOTALL))
    assert set(sections) == {*Top.model_fields, *SCHEMA}

    def missing(schema: Any, text: str) -> list[str]:
        if isinstance(schema, dict):
            return [key for name, inner in schema.items() for key in [*_absent([name], text), *missing(inner, text)]]
        return _absent(schema.model_fields, text)

    for name, schema in SCHEMA.items():
        assert missing(schema, sections[name]) == [], name
    # Values that are shown as defaults are the defaults.
    shown = yaml.safe_load(file.read_text())
    for name in ("init", "pretrain", "propagate", "evaluate", "report"):
        fields = SCHEMA[name].model_fields  # type: ignore[union-attr]
        for key, value in shown[name].items():
            default = fields[key].default
            assert value == (list(default) if isinstance(default, tuple) else default), f"{name}.{key}"


def _absent(keys: Any, text: str) -> list[str]:
    return [key for key in keys if not re.search(rf"^\s*(# *)?{key}:", text, re.MULTILINE)]


@pytest.mark.parametrize(
    "name", ["smollm2-ru", "smollm2-pair-ru", "mistral-7b-ru-extended", "llama-3-8b-ru-optimized", "template"]
)
def test_every_recipe_that_comes_with_lep_is_read(name: str) -> None:
    assert load_recipe(name).top.lang == "ru"


def test_help_answers_without_heavy_imports() -> None:
    code = "import sys, lep.cli; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'pydantic_core')))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
