"""What comes from elsewhere is read, or refused in a sentence: nothing else, whatever is in it."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from darumeru.data.bundle import open_bundle  # noqa: E402
from darumeru.errors import UserError  # noqa: E402
from darumeru.files import read_json, read_jsonl, slug  # noqa: E402
from darumeru.inference.prompt import Limits, Prompter  # noqa: E402
from darumeru.leaderboard.entry import Problem  # noqa: E402
from darumeru.leaderboard.load import read_run  # noqa: E402
from darumeru.record.run import Run  # noqa: E402
from darumeru.task.suite import Catalogue, read_wording  # noqa: E402
from darumeru.task.template import fill, render  # noqa: E402
from darumeru.weights import read_header  # noqa: E402
from lep.pipeline import load_recipe  # noqa: E402
from lep.tokenizer.vocabulary import Vocabulary  # noqa: E402
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level  # noqa: E402
from support.synthetic import make_run  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "recipes" / "smollm2-ru.yaml").read_text(encoding="utf-8")

OURS = frozenset(Catalogue().tasks())

some = settings(
    max_examples=40, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["../../evil", "/etc/passwd", "\0", "x" * 5000, "{{ x }}", "<script>", "ы", "\u202e", 10**400, -1]),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3))
TEXTS = st.binary(max_size=60) | st.sampled_from(
    [b"[" * 100_000, b"1" * 5000, b"\xff", b'{"a": NaN}', b"", b'"\\ud800"']
)


def disturbed(value: Any, draw: random.Random, new: Any) -> Any:
    """Return a JSON value in which one place, anywhere, holds something else, another key, or nothing."""
    places = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    for holder, key in places:
        if isinstance(holder[key], dict | list):
            inner = holder[key]
            places += [(inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))]
    holder, key = draw.choice(places)
    if draw.random() < 0.2:
        del holder[key]
    elif draw.random() < 0.2 and isinstance(holder, dict):
        holder[new if isinstance(new, str) else "../../evil"] = holder.pop(key)
    else:
        holder[key] = new
    return value


def refused(action: Callable[[], Any]) -> None:
    """Do what may be refused, in one sentence."""
    try:
        action()
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)


@some
@given(data=TEXTS)
def test_files_of_json(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(data)
    refused(lambda: read_json(file))
    refused(lambda: list(read_jsonl(file)))
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08\0" + data)
    refused(lambda: list(read_jsonl(tmp_path / "a.jsonl.gz")))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), "model")


@some
@given(
    seed=st.integers(0, 10**6),
    new=VALUES,
    name=st.sampled_from(["header.json", "scores.json", "samples", "manifest.json"]),
)
def test_records_of_others(run: Path, tmp_path: Path, seed: int, new: Any, name: str) -> None:
    """What a board cannot read is a problem that it names; no file outside the record is read or written."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    file = folder / name if name != "samples" else min((folder / "samples").iterdir())
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if name == "samples" else None
    value = disturbed(rows or json.loads(file.read_text("utf-8")), random.Random(seed), new)
    lines = [json.dumps(row) for row in value] if rows else [json.dumps(value)]
    file.write_text("\n".join(lines) + "\n")
    refused(lambda: Run(folder).header)
    assert isinstance(read_run(folder), Problem | tuple)


@some
@given(name=st.sampled_from(["../../evil", "/home/evil", "..", "a/b", "", ".", "a\0"]))
def test_a_task_of_a_record_never_becomes_a_path(run: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    header = json.loads((folder / "header.json").read_text("utf-8"))
    header["tasks"][name] = next(iter(header["tasks"].values()))
    (folder / "header.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match="is a path"):
        Run(folder).header  # noqa: B018


@some
@given(data=TEXTS, line=st.integers(0, 70), new=SCALARS)
def test_recipes(tmp_path: Path, data: bytes, line: int, new: Any) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(data)
    refused(lambda: load_recipe(file))
    lines = RECIPE.splitlines()
    at = line % len(lines)
    lines[at] = (
        f"{lines[at].partition(':')[0]}: {json.dumps(new) if not isinstance(new, int) or new < 10**99 else '9' * 5000}"
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    refused(lambda: load_recipe(file))


@some
@given(data=TEXTS, seed=st.integers(0, 10**6), new=VALUES)
@example(data=b"", seed=0, new=10**30)
def test_headers_of_safetensors(tmp_path: Path, data: bytes, seed: int, new: Any) -> None:
    """What is read lies within the file."""
    file = tmp_path / "m.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    }
    text = json.dumps(disturbed(header, random.Random(seed), new)).encode() if not isinstance(new, int) else data
    for content in (data, len(data).to_bytes(8, "little") + data, len(text).to_bytes(8, "little") + text + bytes(32)):
        file.write_bytes(content)

        def read() -> None:
            for tensor in read_header(file)[0].values():
                assert tensor.offset >= 0
                assert tensor.offset + tensor.nbytes <= file.stat().st_size

        refused(read)


ATTRIBUTES = [
    "__class__",
    "__mro__",
    "__subclasses__()",
    "__globals__",
    "__init__",
    "func_globals",
    "mro()",
    "gi_frame",
]


@some
@given(
    start=st.sampled_from(["x", "''", "[]", "x.items", "cycler", "lipsum", "self"]),
    path=st.lists(st.sampled_from(ATTRIBUTES), min_size=1),
)
def test_templates_reach_no_objects(start: str, path: list[str]) -> None:
    with pytest.raises((jinja2.exceptions.SecurityError, jinja2.UndefinedError)):
        render("{{ " + ".".join([start, *path]) + " }}", {"x": {"a": [1]}})


@pytest.mark.parametrize("change", ["x.update(b=1)", "x.a.append(2)", "x.clear()", "x.pop('a')"])
def test_templates_change_no_row(change: str) -> None:
    row = {"a": [1]}
    with pytest.raises(jinja2.exceptions.SecurityError):
        render("{{ " + change + " }}", {"x": row})
    assert row == {"a": [1]}


@some
@given(text=st.text(alphabet=st.sampled_from("{}ax.[]!:0_ ")))
def test_messages_of_rows_take_plain_names_only(text: str) -> None:
    with contextlib.suppress(KeyError, ValueError):
        assert "object at" not in fill(text, {"a": object, "x": "x"}).replace("<class 'object'>", "")


@some
@given(name=st.text())
def test_names_become_one_harmless_part_of_a_path(tmp_path: Path, name: str) -> None:
    made = slug(name)
    (tmp_path / made).mkdir(exist_ok=True)
    assert (tmp_path / made).resolve().parent == tmp_path.resolve()
    assert not made.startswith((".", "-"))


@some
@given(rows=st.lists(TEXTS, max_size=3))
def test_bundles(tmp_path: Path, rows: list[bytes]) -> None:
    split = tmp_path / "bundle" / "data" / "test.jsonl"
    split.parent.mkdir(parents=True, exist_ok=True)
    split.write_bytes(b"\n".join(rows))
    refused(lambda: open_bundle(split.parents[1]).load("owner/data", None, "test"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_level(tmp_path_factory.mktemp("tokenizer"), ENGLISH + RUSSIAN, 300)


@some
@given(data=TEXTS, seed=st.integers(0, 10**6), new=VALUES)
def test_tokenizers(tiny: Path, tmp_path: Path, data: bytes, seed: int, new: Any) -> None:
    """Of a whole one with a place that holds something else, and of anything."""
    file = tmp_path / "tokenizer.json"
    spec = json.loads((tiny / "tokenizer.json").read_text("utf-8"))
    for content in (json.dumps(disturbed(spec, random.Random(seed), new)).encode(), data):
        file.write_bytes(content)

        def read() -> None:
            found = Vocabulary.load(tmp_path)
            assert found.size >= 0
            found.tokenizer.encode("дом и сад")

        refused(read)


@settings(some, max_examples=12)  # lm-eval reads all tasks each time
@given(data=TEXTS, line=st.integers(0, 30), new=SCALARS)
def test_tasks_of_users(tmp_path: Path, data: bytes, line: int, new: Any) -> None:
    """A task file is read or refused; the tasks beside it stay."""
    lines = (ROOT / "tasks" / "parus.yaml").read_text("utf-8").replace("parus", "mine").splitlines()
    at = line % len(lines)
    if not isinstance(new, int) or new < 10**99:
        lines[at] = f"{lines[at].partition(':')[0]}: {json.dumps(new)}"
    for content in ("\n".join(lines).encode(), data):
        (tmp_path / "mine.yaml").write_bytes(content)

        def read() -> None:
            catalogue = Catalogue([tmp_path])
            catalogue.suite("darumeru")
            for name in catalogue.tasks():
                if name not in OURS:
                    catalogue.load([name], "mini")

        refused(read)


@some
@given(data=TEXTS, key=st.text(max_size=6), new=VALUES)
def test_wordings(tmp_path: Path, data: bytes, key: str, new: Any) -> None:
    file = tmp_path / "wording.yaml"
    for content in (data, json.dumps({"parus": {key: new}, key: {"gen_prefix": new}}).encode()):
        file.write_bytes(content)
        refused(lambda: read_wording(file))


@some
@given(text=st.text(st.characters(codec="utf-8"), max_size=40), plain=st.booleans())
@example(text="\0\x7f\u200d\u202e\ufeff\U0010ffff<|end|>", plain=False)
def test_prompts_hold_any_character(tiny: Path, text: str, plain: bool) -> None:
    """The model reads what the document says, whatever is in it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    tokenizer.chat_template = template
    prompter = Prompter(tokenizer, "foundation" if plain else "instruct", Limits(400))
    messages = [{"role": "user", "content": text}]
    prompt = prompter.render(messages)
    assert text.strip() in prompt
    [ids] = prompter.encode([prompt])
    assert tokenizer.decode(ids) == prompt
