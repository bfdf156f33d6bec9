"""Boards, pages, comparisons and exports from synthetic runs: what is ranked, what is told apart, what is refused."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.files import file_sha256
from darumeru.leaderboard import build, compare
from darumeru.leaderboard.published import read_published
from darumeru.record.run import Run
from support.commands import call
from support.synthetic import NASTY, TASKS, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "a", "strong", skill=0.7, seed=1)
    make_run(folder / "b", "twin", skill=0.7, seed=2)
    make_run(folder / "c", "weak", skill=0.25, seed=3)
    make_run(folder / "d", "part", skill=0.5, seed=4, tasks=TASKS[:5])
    return folder


@pytest.fixture(scope="module")
def site(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([runs], tmp_path_factory.mktemp("site") / "site", baseline="weak", processes=1).path


def rows_of(site: Path) -> dict[str, dict[str, object]]:
    return {
        r["name"]: r
        for r in json.loads((site / "table.json").read_text(encoding="utf-8"))["rows"]
        if not r["published"]
    }


def test_ranks_are_shared_and_parts_are_apart(site: Path) -> None:
    rows = rows_of(site)
    assert rows["strong"]["rank"] == rows["twin"]["rank"] == 1
    assert rows["weak"]["rank"] == 3
    assert rows["part"]["rank"] is None
    assert rows["part"]["pool"] == "incomplete"
    assert rows["part"]["covered"] == 5
    assert rows["strong"]["scores"]["micro_avg"]["difference"]["significant"] is True
    with (site / "table.csv").open(encoding="utf-8") as file:
        table = {row["model"]: row for row in csv.DictReader(file)}
    assert table["part"]["micro_avg"] == "", "the mean over a part is no Micro-Avg"
    assert float(table["strong"]["micro_avg_low"]) < float(table["strong"]["micro_avg"])
    assert table["Mistral Nemo (12B)"]["micro_avg_low"] == ""


def test_the_site_is_whole_and_asks_nobody(site: Path) -> None:
    names = {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()}
    assert {
        "index.html",
        "table.md",
        "table.csv",
        "table.json",
        "table.tex",
        "assets/vega.js",
        "data/board.js",
    } <= names
    assert {"figures/groups.svg", "figures/groups.png", "figures/heat.svg", "figures/radar.png"} <= names
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in text
        assert 'src="http' not in text
        assert "style=" not in text, "the policy allows no inline style"
    assert sum(p.stat().st_size for p in site.rglob("vega*.js")) < 1_500_000
    assert not [n for n in names if n.endswith(".tmp")]


def test_published_rows_agree_with_the_paper_s_mean() -> None:
    rows = read_published()
    assert len(rows) == 52
    for row in rows:
        s = {k: v[0] for k, v in row.scores.items()}
        mean = (3 * s["darummlu"] + 8 * s["darumera"] + 2 * (s["darusum"] + s["darucopy_en"] + s["darucopy_ru"])) / 17
        assert abs(mean - s["suite"]) < 0.001, row
        assert row.scores["suite"][1] is None


def test_the_same_runs_give_the_same_site(runs: Path, tmp_path: Path) -> None:
    first, second = (build([runs], tmp_path / n, published=False, processes=p).path for n, p in (("a", 1), ("b", 2)))
    for file in ("index.html", "table.json", "data/board.js", "table.csv"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_names_and_texts_never_become_markup(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "x", NASTY, text=NASTY + " \u202eсправа налево \u2028 \x00 ")
    make_run(tmp_path / "runs" / "y", "и" * 300, seed=5)
    make_run(tmp_path / "runs" / "z", "../../escape", seed=6)
    out = build([tmp_path / "runs"], tmp_path / "site", title=NASTY).path
    for file in [*out.rglob("*.html"), *(out / "data").rglob("*.js"), *(out / "runs").rglob("*.js")]:
        text = file.read_text(encoding="utf-8")
        assert "<script>alert" not in text, file
        assert "<img src=x" not in text, file
        assert "{49" not in text, file
    assert "<script>" not in (out / "table.md").read_text(encoding="utf-8")
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "site"}
    pages = sorted(p.parent.relative_to(out / "runs") for p in (out / "runs").rglob("samples.html"))
    assert len(pages) == 3
    assert all(len(p.parts) == 1 and not p.name.startswith(".") for p in pages), "a name leads out of its folder"


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "same", seed=1)
    make_run(tmp_path / "b", "same", seed=2, num_fewshot=5)
    board = build([tmp_path / "a", tmp_path / "b"], tmp_path / "site", published=False, samples=False).board
    assert sorted(r.entry.name for r in board.rows) == ["same (0-shot)", "same (5-shot)"]
    badges = [b.kind for r in board.rows for b in r.badges]
    assert "other_setting" in badges, "a mixed section says so"


def test_runs_of_a_sample_are_called_so(tmp_path: Path) -> None:
    """--limit takes a seeded sample, not the first documents."""
    for number, limit in enumerate((None, 5, 10)):
        make_run(tmp_path / "runs" / str(number), "m", limit=limit, seed=number)
    board = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).board
    assert sorted(r.entry.name for r in board.rows) == ["m", "m (limit 10)", "m (limit 5)"]


def test_what_is_told_of_no_model_on_the_board_is_named(runs: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.yaml"
    about.write_text("strong: {note: , vocab: own}\nstrnog: {note: x}\nOpenchat 3.5: {note: y}\n", encoding="utf-8")
    said = call("leaderboard", runs / "a", "--output", tmp_path / "site", "--about", about)
    assert "--about names 'strnog', which is no model and no run id of this board." in " ".join(said.split())
    assert said.count("--about names") == 1
    row = rows_of(tmp_path / "site")["strong"]
    assert (row["vocab"], row["note"]) == ("own", None)


def test_no_text_of_the_table_is_a_formula(tmp_path: Path) -> None:
    """Spreadsheets compute cells that begin with =, +, - or @; the names of records are anybody's."""
    names = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(1)", "plain = 1"]
    for number, name in enumerate(names):
        make_run(tmp_path / "runs" / str(number), name, seed=number)
    site = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).path
    with (site / "table.csv").open(encoding="utf-8") as file:
        found = [row["model"] for row in csv.DictReader(file)]
    assert sorted(found) == sorted(["'" + name for name in names[:4]] + names[4:])
    assert sorted(rows_of(site)) == sorted(names), "programs get the names as they are"


def test_other_data_and_wordings_are_not_mixed_silently(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "one", seed=1)
    make_run(tmp_path / "b", "two", seed=2, documents=21)
    worded = make_run(tmp_path / "c", "three", seed=3)
    header = json.loads((worded / "header.json").read_text())
    header["tasks"]["parus"]["wording"] = {"gen_prefix": "Ответ: "}
    (worded / "header.json").write_text(json.dumps(header))
    resealed(worded)
    board = build([tmp_path / x for x in "abc"], tmp_path / "site", published=False).board
    pools = {r.entry.name: r.pool for r in board.rows}
    assert pools["one"] == pools["three"] != pools["two"]
    assert [b.kind for r in board.rows if r.entry.name == "three" for b in r.badges] == ["wording"]


def resealed(run: Path) -> None:
    """The manifest of a run whose header was changed on purpose."""
    from darumeru.files import file_sha256

    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"] = {n: file_sha256(run / n) for n in manifest["files"]}
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_bad_runs_are_named_and_the_rest_is_built(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(runs / "a", folder / "good")
    shutil.copytree(runs / "a", folder / "copy")
    make_run(folder / "cut", "cut", complete=False)
    for name in ("sum", "json", "keys", "nan"):
        make_run(folder / name, name, seed=len(name), limit=ord(name[0]))
    (folder / "sum" / "samples" / "parus.jsonl").write_text("{}\n")
    (folder / "json" / "header.json").write_text("{")
    (folder / "keys" / "samples" / "parus.jsonl").write_text('{"id": 0}\n')
    resealed(folder / "keys")
    text = (folder / "nan" / "samples" / "multiq.jsonl").read_text()
    (folder / "nan" / "samples" / "multiq.jsonl").write_text(
        text.replace('"prompt_tokens": 12', '"prompt_tokens": NaN', 1)
    )
    resealed(folder / "nan")
    out = call("leaderboard", folder, "--output", tmp_path / "site", "--no-published")
    for name in (
        "cut: The run was not finished",
        "sum: ",
        "json: ",
        "keys: The record is not as a run writes it",
        "nan: ",
    ):
        assert f"Not shown: {name}" in out, out
    assert list(rows_of(tmp_path / "site")) == ["strong"]
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count("<li><b dir") == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere", "--output", "s"], "'nowhere' is no folder"),
        (["empty", "--output", "s"], "'empty' holds no run"),
        (["runs/a", "--output", "full"], "holds files that no leaderboard wrote"),
        (["runs/a", "--output", "file"], "is a file"),
        (["runs/a", "--output", "s", "--baseline", "stong"], "Unknown baseline 'stong'. Did you mean 'strong'?"),
        (["runs/a", "--output", "s", "--baseline", "Openchat 3.5"], "is the name of"),
        (["runs/a", "--output", "s", "--about", "no.yaml"], "'no.yaml' does not exist"),
        (["runs/a", "--output", "s", "--about", "bad.yaml"], "'nmae'. Did you mean 'name'?"),
        (["runs/a", "--output", "s", "--about", "url.yaml"], "must begin with https://"),
        (["cut", "--output", "s", "--no-published"], "none of 1 runs can be read"),
    ],
)  # fmt: skip
def test_bad_input_says_what_is_wrong(
    args: list[str], message: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(runs)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "bad.yaml").write_text("strong: {nmae: x}")
    (tmp_path / "url.yaml").write_text("strong: {url: 'javascript:alert(1)'}")
    make_run(tmp_path / "cut", "cut", complete=False)
    out = call("leaderboard", *args, code=2)
    assert message in out.replace("\n", " "), out
    assert (tmp_path / "full" / "thesis.tex").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "no half-built site is left"


def test_a_site_is_replaced_as_a_whole(runs: Path, tmp_path: Path) -> None:
    build([runs / "a", runs / "b"], tmp_path / "site")
    build([runs / "a"], tmp_path / "site")
    assert len(list((tmp_path / "site" / "runs").iterdir())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_samples_can_be_left_out(runs: Path, tmp_path: Path) -> None:
    build([runs / "a"], tmp_path / "site", samples=False)
    assert not list((tmp_path / "site").rglob("samples.html"))
    assert "samples.html" not in next((tmp_path / "site" / "runs").glob("*/index.html")).read_text(encoding="utf-8")


def test_curves_of_one_training(tmp_path: Path) -> None:
    for step in (0, 100, 200):
        training = {"name": "lep", "step": step, "tokens_seen": step * 1000}
        make_run(tmp_path / f"r{step}", f"lep/checkpoint-{step}", skill=0.4 + step / 1000, seed=step, training=training)
    out = build([tmp_path / f"r{s}" for s in (0, 100, 200)], tmp_path / "site", published=False).path
    assert (out / "figures" / "curve-steps.svg").exists()
    text = (out / "data" / "board.js").read_text(encoding="utf-8")
    curves = json.loads(text[text.index(",") + 1 : text.rindex(")")])["curves"]
    micro = [c for c in curves["tokens"] if c["column"] == "Micro-Avg"]
    assert [c["x"] for c in micro] == [0, 100_000, 200_000]
    assert len({c["base"] for c in micro}) == 1
    assert micro[0]["base"] == pytest.approx(micro[0]["score"])


# -- compare and exports ----------------------------------------------------------------------------------------------


def test_compare_finds_the_difference_and_the_flips(runs: Path) -> None:
    found = compare(Run(runs / "c"), Run(runs / "a"))
    lines = {line.column: line for line in found.lines}
    assert lines["suite"].difference.value > 0.2
    assert lines["suite"].p_holm is not None
    assert lines["suite"].p_holm < 1e-6
    rwsd = lines["rwsd"]
    assert rwsd.difference.test == "mid-p"
    assert (rwsd.better, rwsd.worse) == (len(found.flips["rwsd"][0]), len(found.flips["rwsd"][1]))
    assert rwsd.difference.value == pytest.approx((rwsd.better - rwsd.worse) / 20)
    assert lines["rcb"].difference.test == "bootstrap"
    back = compare(Run(runs / "a"), Run(runs / "c"), ["rwsd"])
    assert back.lines[0].difference.value == pytest.approx(-rwsd.difference.value)
    assert back.lines[0].difference.p == pytest.approx(rwsd.difference.p)


def test_compare_takes_the_documents_that_both_have(runs: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(runs / "c", tmp_path / "cut"))
    lines = (cut / "samples" / "rwsd.jsonl").read_text().splitlines(keepends=True)
    (cut / "samples" / "rwsd.jsonl").write_text("".join(lines[:12]))
    resealed(cut)
    found = compare(Run(runs / "a"), Run(cut), ["rwsd"])
    assert found.lines[0].documents == 12
    assert "12 documents are in both runs (20 and 12)" in found.remarks[0]


def test_compare_on_the_command_line(runs: Path, tmp_path: Path) -> None:
    out = call("compare", runs / "a", runs / "c", "--task", "rwsd,parus", "--output", tmp_path / "page")
    assert "rwsd" in out
    assert json.loads(call("compare", runs / "a", runs / "c", "--json"))["lines"][0]["column"] == "suite"
    assert "| **Micro-Avg** |" in call("compare", runs / "a", runs / "c", "--markdown")
    assert "Samples that changed" in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    wrong = call("compare", runs / "a", runs / "c", "--task", "rwds", code=2)
    assert "Unknown task of both runs 'rwds'. Did you mean 'rwsd'?" in wrong
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "no comparison wrote" in call("compare", runs / "a", runs / "c", "--output", tmp_path / "full", code=2)
    with pytest.raises(UserError, match="share no task"):
        make_run(tmp_path / "other", "other", tasks=["cp_para_ru"])
        compare(Run(runs / "d"), Run(tmp_path / "other"))


def test_exports(runs: Path, site: Path, tmp_path: Path) -> None:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    card = tmp_path / "README.md"
    card.write_text(f"---\n{call('export', runs / 'a', '--format', 'model-index', '--name', 'team/model')}---\n# x\n")
    data = ModelCard.load(card).data
    assert isinstance(data, ModelCardData)
    assert data.model_name == "team/model"
    assert isinstance(data.eval_results[0], EvalResult)
    assert len(data.eval_results) == 18
    assert data.eval_results[-1].metric_type == "micro_avg"
    assert "img.shields.io/badge/Darumeru%20Micro--Avg" in call("export", runs / "a", "--format", "badge")
    assert r"\toprule" in call("export", runs / "a", "--format", "latex")
    assert "| **Micro-Avg** |" in call("export", runs / "a", "--format", "markdown")
    assert "Unknown format 'yaml'" in call("export", runs / "a", "--format", "yaml", code=2)
    tex = (site / "table.tex").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert "part" not in tex


def test_bits_per_byte_are_better_where_they_are_lower(tiny_base: Path, tmp_path: Path) -> None:
    """A suite that holds shares and bits per byte: only the shares make the mean, and a model with fewer bits is better."""
    import darumeru

    options = {"suite": "darumeru-train", "data": "mini", "engine": "hf", "dtype": "float32", "limit": 2}
    a = darumeru.evaluate(tiny_base, output=tmp_path / "runs", **options)
    b = darumeru.evaluate(tiny_base, output=tmp_path / "runs", num_fewshot=0, **options)
    assert a.header.suite.groups[0].to_json() == {
        "name": "bits_per_byte",
        "title": "Bits per byte (lower is better)",
        "tasks": ["bpb_ru", "bpb_en"],
        "counts": False,
    }
    board = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).board
    assert board.lower == ["bits_per_byte", "bpb_ru", "bpb_en"]
    for row in board.rows:
        assert row.rank is not None
        assert all(task.reproduced for task in row.entry.tasks.values())
        counted = [row.entry.scores[t][0] for g in board.suite.groups[2:] for t in g.tasks]
        assert row.entry.scores["suite"][0] == pytest.approx(sum(counted) / len(counted))

    # The same run with fewer bits for every text.
    other = tmp_path / "runs" / "better"
    shutil.copytree(b.path, other)
    rows = [json.loads(line) for line in (other / "samples" / "bpb_ru.jsonl").read_text().splitlines()]
    for row in rows:
        row["score"]["bits"] /= 2
        row["score"]["bits_per_byte"] /= 2
    (other / "samples" / "bpb_ru.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = json.loads((other / "scores.json").read_text())
    scores["tasks"]["bpb_ru"]["metrics"]["bits_per_byte"]["value"] /= 2
    (other / "scores.json").write_text(json.dumps(scores))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"] = {name: file_sha256(other / name) for name in manifest["files"]}
    (other / "manifest.json").write_text(json.dumps(manifest))
    found = compare(Run(b.path), Run(other), ["bpb_ru"])
    line = next(line for line in found.lines if line.column == "bpb_ru")
    assert line.b == pytest.approx(line.a / 2)
    assert (line.better, line.worse) == (line.documents, 0)
