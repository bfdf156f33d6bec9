"""The pages in a real browser, opened from disk: sorting, filters, language, samples; nothing asked of the network."""

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from darumeru.leaderboard import build, compare, served
from darumeru.leaderboard.compare import write_page
from darumeru.record.run import Run
from darumeru.requests import Answer
from support.arena import House, hold
from support.synthetic import NASTY, in_bits, make_run
from support.tiny import make_model

pytestmark = pytest.mark.xdist_group("browser")

CHROMIUM = os.environ.get("DARUMERU_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120_000
"""Milliseconds for what takes a moment on a machine with nothing else to do."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="PAGES NOT TESTED: playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("PAGES NOT TESTED IN A BROWSER: no chromium ('apt-get install chromium', or set DARUMERU_CHROMIUM)")
    with sync.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    make_run(folder / "runs" / "a", "strong", skill=0.7, seed=1)
    make_run(folder / "runs" / "b", "Ёжик", skill=0.6, seed=2, num_fewshot=5, mode="foundation")
    make_run(folder / "runs" / "c", NASTY, skill=0.3, seed=3, documents=20, text=NASTY)
    make_run(folder / "runs" / "d", "many", skill=0.3, seed=4, documents=450)
    for step in (0, 50):
        training = {"name": "lep", "step": step, "tokens_seen": step * 10}
        make_run(folder / "runs" / f"t{step}", f"lep-{step}", seed=step, training=training)
    on: Any = {"mode": "on", "budget": 512, "end": "</think>"}
    make_run(folder / "thinking" / "on", "hybrid", skill=0.6, thinking=on, text=NASTY)
    make_run(folder / "thinking" / "off", "hybrid", skill=0.5, thinking={"mode": "off"})
    build([folder / "thinking"], folder / "thinking-site", published=False)
    build([folder / "runs"], folder / "site", baseline="strong", title=f"Доска {NASTY}")
    write_page(compare(Run(folder / "runs" / "a"), Run(folder / "runs" / "c")), folder / "compare")
    return folder


@dataclass
class Watched:
    """A page with all that it asked for and complained of."""

    page: Any
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def open(self, file: Path, fragment: str = "") -> Any:
        self.page.goto(file.as_uri() + fragment)
        self.page.wait_for_load_state("networkidle")
        return self.page


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1300, "height": 900}, locale="en-US")
    context.set_default_timeout(PATIENCE)
    found = Watched(context.new_page())
    found.page.on("request", lambda r: found.requests.append(r.url))
    found.page.on("console", lambda m: found.faults.append(m.text) if m.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda e: found.faults.append(str(e)))
    found.page.on("dialog", lambda d: (found.faults.append(f"dialog {d.message}"), d.dismiss()))
    yield found
    context.close()
    assert found.faults == []
    assert [r for r in found.requests if not r.startswith(("file:", "data:"))] == []


def names(page: Any) -> list[str]:
    """Return the names of the board's rows, once it has any: data come by scripts, after the page."""
    page.wait_for_selector("#board tbody tr[data-id] .name")
    return page.locator("#board tbody tr[data-id] .name").all_inner_texts()


def count(page: Any, selector: str, want: int) -> None:
    """Wait until so many elements are there (Playwright's wait_for_function would eval, which the page forbids)."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(want, timeout=PATIENCE)


def expect_text(page: Any, selector: str, want: str) -> None:
    """Wait until an element says so."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(want, timeout=PATIENCE)


def test_sort_search_filter_and_state_in_the_address(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    assert names(page)[0] == "strong"
    assert page.locator('th[data-key="suite"]').get_attribute("aria-sort") == "descending"
    page.locator('th[data-key="suite"] button').click()
    assert page.locator('th[data-key="suite"]').get_attribute("aria-sort") == "ascending"
    assert names(page)[0] != "strong"
    page.locator('th[data-key="model"] button').press("Enter")
    first = names(page)
    assert first.index("lep-0") < first.index("strong")
    page.fill("#q", "ежик")
    count(page, "#board tbody tr[data-id]", 1)
    assert names(page) == ["Ёжик"]
    page.fill("#q", "")
    page.select_option("#set", "few")
    assert "Ёжик" in names(page)
    assert "strong" not in names(page)
    address = page.url
    assert "set=few" in address
    page.reload()
    page.wait_for_load_state("networkidle")
    assert "strong" not in names(page)
    page.click("#reset")
    assert "strong" in names(page)
    page.select_option("#voc", "unigram")
    assert names(page)
    assert set(names(page)) <= {"Mistral-7B", "LLaMa-3-8B", "Openchat 3.5", "LLaMa-3-8B (Instruct)"}


def test_tasks_toggle_choice_and_figures(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    assert names(page)
    assert page.locator('th[data-key="parus"]').count() == 0
    page.click("#tasks")
    count(page, 'th[data-key="parus"]', 1)
    for index in (0, 1):
        page.locator("#board tbody tr[data-id] input").nth(index).check()
    page.wait_for_selector("#radar svg")
    assert page.locator("#side thead th").count() == 3
    for figure in ("groups", "symbols", "heat", "steps", "tokens"):
        page.click(f"#tab-{figure}")
        page.wait_for_selector("#figure svg")
        page.wait_for_timeout(300)
        assert page.locator("#figure svg path, #figure svg rect").count() > 3, figure
    page.locator("#tab-tokens").press("ArrowRight")
    assert page.locator("#tab-groups").get_attribute("aria-selected") == "true"
    page.click("#only")
    count(page, "#board tbody tr[data-id]", 2)


def test_language_theme_and_badges(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    page.click("#lang")
    assert page.locator("html").get_attribute("lang") == "ru"
    assert "Место" in page.locator("#board thead").inner_text()
    assert page.locator("h2#h-read").inner_text() == "Как это читать"
    page.click("#lang")
    assert page.locator("h2#h-read").inner_text() == "How to read this"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.locator(".badge").first.focus()
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_every_word_is_translated(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    gaps = "Object.keys(TEXT.en).filter((k) => !(k in TEXT.ru) && !/^b_other_(setting|dtype)$/.test(k))"
    assert page.evaluate(gaps) == []
    for file in [
        "index.html",
        *("runs/" + p.parent.name + "/" + p.name for p in (folder / "site" / "runs").glob("strong-*/*.html")),
    ]:
        page = watched.open(folder / "site" / file)
        lost = "[...document.querySelectorAll('[data-t]')].map((n) => n.dataset.t).filter((k) => !(k in TEXT.ru))"
        assert page.evaluate(lost) == [], file


def test_down_to_a_sample_and_back(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    page.locator("#board tbody tr[data-id] .name a", has_text="many").click()
    page.wait_for_load_state("networkidle")
    page.locator("th.task a", has_text="rwsd").click()
    count(page, "article.sample", 25)
    assert page.locator("article.sample").first.get_attribute("class") == "sample wrong", "failures come first"
    assert len([r for r in watched.requests if "/data/rwsd-" in r]) == 1, "only the first piece was loaded"
    page.select_option("#show", "right")
    page.wait_for_selector("article.sample.right")
    count(page, "article.sample.wrong", 0)
    page.select_option("#show", "")
    page.fill("#q", "rwsd 449")
    count(page, "article.sample", 1)
    assert len({r for r in watched.requests if "/data/rwsd-" in r}) == 3
    assert "rwsd 449" in page.locator("article.sample .question pre").inner_text(), "the question is shown at once"
    page.locator("article.sample summary").click()
    assert "rwsd 449" in page.locator("article.sample .prompt pre").inner_text()
    page.locator(".crumbs a").first.click()
    page.wait_for_load_state("networkidle")
    assert "strong" in names(page)


def test_a_row_has_an_address_that_filters_do_not_hide(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    row = page.locator("#board tbody tr[data-id]", has_text="Ёжик")
    address = row.locator("a.copy").get_attribute("href")
    assert address == f"#row={row.get_attribute('data-id')}"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row.locator("a.copy").click()
    expect_text(page, "#status", "Link copied: Ёжик")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.endswith(f"/site/index.html{address}")
    other = watched.open(folder / "thinking-site" / "index.html", address)
    expect_text(other, "#status", f"This board has no row {address.removeprefix('#row=')}.")
    page = watched.open(folder / "site" / "index.html", f"{address}&q=strong&sort=model")
    count(page, "tr.wanted", 1)
    assert page.locator("tr.wanted .name").inner_text() == "Ёжик"
    box = page.locator("tr.wanted").bounding_box()
    assert 0 < box["y"] < 900


def test_a_sample_has_an_address_of_its_document(watched: Watched, folder: Path, tmp_path: Path) -> None:
    """The same in another run, and where rows were added and samples stand in another order."""
    many = next((folder / "site" / "runs").glob("many-*"))
    page = watched.open(many / "samples.html", "#task=rwsd&lang=en&q=rwsd+7")
    count(page, "article.sample", 11)
    card = page.locator("article.sample", has=page.locator("a.number", has_text="Sample 77"))
    address = card.locator("a.copy").get_attribute("href")
    question = card.locator(".question pre").inner_text()
    card.locator("a.number").click()
    count(page, "article.sample", 1)
    assert "sample=" in page.url
    assert "q=" not in page.url
    make_run(tmp_path / "runs" / "d", "many", skill=0.3, seed=4, documents=450)
    make_run(tmp_path / "runs" / "e", "other", skill=0.9, seed=9, documents=450)
    site = build([tmp_path / "runs"], tmp_path / "site", published=False).path
    for run in site.glob("runs/*"):
        before = len(watched.requests)
        page = watched.open(run / "samples.html", address + "&lang=en")
        count(page, "article.sample", 1)
        assert page.locator("article.sample .question pre").inner_text() == question
        pieces = [r for r in watched.requests[before:] if "/data/rwsd-" in r]
        assert len(pieces) == 2, "the keys, and the one piece that holds it"
    assert (site / "runs" / many.name).is_dir(), "the run's page has the address that it had"
    page.locator("#every").click()
    count(page, "article.sample", 25)
    page = watched.open(many / "samples.html", "#task=rwsd&sample=0123456789ab&lang=en")
    expect_text(page, "#samples", "This run has no such sample.")


def test_bits_are_neither_right_nor_wrong(watched: Watched, tmp_path: Path) -> None:
    in_bits(make_run(tmp_path / "runs" / "a", "reader", tasks=["multiq", "parus"]), "multiq")
    run = next(build([tmp_path / "runs"], tmp_path / "site", published=False).path.glob("runs/*"))
    page = watched.open(run / "samples.html", "#task=multiq&lang=en&show=right")
    count(page, "article.sample", 20)
    assert page.locator(".verdict").count() == 0
    assert not page.locator("#show").is_visible()
    page.select_option("#task", "parus")
    page.wait_for_selector("#show")
    count(page, ".verdict", 20)


def test_a_board_without_a_mean_has_no_figures_of_means(watched: Watched, tmp_path: Path) -> None:
    groups = [{"name": "g", "title": "Bits", "tasks": ["multiq", "parus"], "counts": False}]
    suite = {"name": "mine", "version": "1", "summary": "No mean", "groups": groups}
    make_run(tmp_path / "runs" / "a", "reader", tasks=["multiq", "parus"], suite=suite)
    site = build([tmp_path / "runs"], tmp_path / "site", published=False).path
    page = watched.open(site / "index.html", "#lang=ru")
    count(page, "#board tbody tr[data-id]", 1)
    assert not page.locator("#tabs").is_visible()
    page.locator("#board input[type=checkbox]").first.check()
    expect_text(page, "#side", "Bits")


def test_the_mean_is_explained_with_the_number_of_its_tasks(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html", "#lang=ru")
    expect_text(page, ".reading", "Среднее по задачам (17)")


def test_a_card_says_what_the_labels_stand_for(watched: Watched, tmp_path: Path) -> None:
    text = f"Что это? {NASTY}\nA. первое {NASTY}\nB. второе\nC. третье\nD. четвёртое\nЗадание"
    make_run(tmp_path / "runs" / "a", "lettered", text=text, tasks=["rummlu", "multiq"])
    run = next(build([tmp_path / "runs"], tmp_path / "site", published=False).path.glob("runs/*"))
    page = watched.open(run / "samples.html", "#task=rummlu&lang=en")
    card = page.locator("article.sample").first
    assert NASTY in card.locator(".question pre").inner_text()
    assert card.locator("details[open]").count() == 0, "nothing needs to be unfolded"
    rows = card.locator(".options tbody tr")
    assert [r.split("\t")[:2] for r in rows.all_inner_texts()][1:] == [
        ["B", "второе"],
        ["C", "третье"],
        ["D", "четвёртое"],
    ]
    assert NASTY in rows.first.inner_text()
    assert page.locator("article.sample img, article.sample script").count() == 0
    assert card.locator(".options tr.is-chosen").count() == 1
    gold = page.evaluate("store.get('rummlu/0')[0].g")
    assert card.locator(".options tr.is-gold th").inner_text() == gold
    page.locator("#lang").click()
    assert "Значение" in page.locator(".options thead").first.inner_text()
    assert page.locator("article.sample").first.locator(".block h3").first.inner_text() == "Вопрос"


def test_an_open_board_follows_a_training_and_keeps_the_reader_s_place(browser: Any, tmp_path: Path) -> None:
    """Records come as a small training writes them; the page is loaded again under the reader, who does not lose their place."""
    runs = tmp_path / "runs"

    def record(step: int, complete: bool = True) -> Path:
        training = {"name": "small", "run": "small", "step": step, "tokens_seen": step * 100}
        skill = 0.35 + step / 200
        return make_run(runs / f"small-{step}", f"checkpoint-{step}", skill, step, training=training, complete=complete)

    for number in range(12):
        make_run(runs / f"other{number}", f"other {number}", skill=0.3 + number / 40, seed=100 + number)
    record(0)
    stop = threading.Event()
    context = browser.new_context(viewport={"width": 1300, "height": 700}, locale="en-US")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: faults.append(str(e)))
    with served([runs], tmp_path / "site", port=0, published=False) as live:
        follower = threading.Thread(target=live.follow, args=(0.2, stop))
        follower.start()
        try:
            page.goto(live.address + "#sort=model&dir=a&fig=steps&lang=en")
            page.wait_for_selector("#figure svg")
            count(page, "#board tbody tr[data-id]", 13)
            # The reader searches, opens what is folded, and looks at a row in the middle of the window.
            page.fill("#q", "e")
            page.wait_for_url(lambda url: "q=e" in url)
            page.locator("details.files summary").click()
            row = page.locator("#board tbody tr[data-id]", has_text="other 7")
            row.evaluate("node => scrollTo(0, scrollY + node.getBoundingClientRect().top)")
            page.evaluate("window.before = true")
            top = row.bounding_box()["y"]
            journal(record(10, complete=False), 3)
            expect_text(page, ".live", "checkpoint-10: 3 answers so far")
            expect_text(page, ".lost", "The run was not finished")
            assert page.evaluate("window.before") is None, "it was loaded again"
            shutil.rmtree(runs / "small-10")
            record(10)
            record(20)
            count(page, "#board tbody tr[data-id]", 15)
            page.wait_for_selector("#figure svg")
            assert page.input_value("#q") == "e"
            assert page.locator('th[data-key="model"]').get_attribute("aria-sort") == "ascending"
            assert page.locator("#tab-steps").get_attribute("aria-selected") == "true"
            assert page.locator("details.files").get_attribute("open") is not None
            assert abs(row.bounding_box()["y"] - top) < 3, "two rows came above it, and it stands where it stood"
            points = page.evaluate(
                "store.get('board').curves.steps.filter((p) => p.column === 'Micro-Avg').map((p) => p.x)"
            )
            assert points == [0, 10, 20]
            # Whoever reads a sample of another run is left alone.
            name = next((tmp_path / "site" / "runs").glob("other-3-*")).name
            page.goto(f"{live.address}runs/{name}/samples.html#task=rwsd&lang=en")
            page.wait_for_selector("article.sample")
            page.evaluate("window.before = true")
            record(30)
            expect_rows(live, 16)
            page.wait_for_timeout(4000)
            assert page.evaluate("window.before") is True
            assert faults == []
        finally:
            stop.set()
            follower.join()
    # A server that has gone leaves one of several network errors: refused, or cut while it answered.
    expect_text(page, ".live", "not live: the server does not answer")
    assert [f for f in faults if not f.startswith("Failed to load resource: net::ERR_")] == []
    context.close()


def journal(run: Path, answers: int) -> None:
    """The journal of a run that is under way, as far as it has come."""
    lines = (json.dumps({"seconds": 1, "answers": [{"id": f"rwsd/{n}/0"}]}) + "\n" for n in range(answers))
    (run / "journal.jsonl").write_text("".join(lines) + '{"seconds": 1, "answ')


def expect_rows(live: Any, want: int) -> None:
    """Wait until the board has so many rows."""
    for _ in range(600):
        if len(json.loads((live.pages.folder / "table.json").read_text())["rows"]) == want:
            return
        time.sleep(0.1)
    raise AssertionError(f"the board did not come to {want} rows")


def test_markup_stays_text_and_the_policy_holds(watched: Watched, folder: Path) -> None:
    site = folder / "site"
    page = watched.open(site / "index.html")
    assert any("<script>alert(1)" in n for n in names(page))
    assert page.locator("main img, main script").count() == 0
    run = next(p for p in (site / "runs").iterdir() if p.name.startswith("script"))
    page = watched.open(run / "samples.html", "#task=multiq&lang=ru&q=%3Cscript%3E")
    page.wait_for_selector("article.sample")
    assert NASTY in page.locator("article.sample .answer pre").first.inner_text()
    page = watched.open(folder / "compare" / "index.html")
    assert page.locator("main script, main img").count() == 0
    # A script that got into a page all the same would not run.
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s); }"
    )
    assert page.evaluate("window.broken") is None
    assert any("Content Security Policy" in f or "content security policy" in f.lower() for f in watched.faults)
    watched.faults.clear()


def strange(number: int) -> str:
    """A text of markup, of what ends strings and scripts, and of characters from anywhere in Unicode."""
    draw = random.Random(number)
    parts = [
        NASTY, "<!--", "]]>", "</pre>", "</textarea>", "<style>*{display:none}</style>", "<svg onload=alert(1)>", "`${alert(1)}`",
        "\\u003cscript\\u003e", "&lt;b&gt;", "&#x3c;", "\u2028", "\u2029", "\u202e", "\u200b", "\ufeff", "'\"", "\\", "\t",
        "<iframe srcdoc='<script>parent.broken=1</script>'>", "<base href=//example.org>", "<meta http-equiv=refresh content=0>",
    ]  # fmt: skip
    while len(parts) < 60:
        code = draw.randrange(0x20, 0x110000)
        if not 0xD800 <= code < 0xE000:  # no half characters: a record has none
            parts.append(chr(code))
    return "".join(draw.choices(parts, k=12)) + f" №{number}"


def test_a_thousand_strange_texts_stay_texts(watched: Watched, tmp_path: Path) -> None:
    texts = [strange(number) for number in range(1000)]
    make_run(tmp_path / "runs" / "a", "strange", documents=1000, text=texts, tasks=["multiq"])
    run = next(build([tmp_path / "runs"], tmp_path / "site", published=False).path.glob("runs/*"))
    page = watched.open(run / "samples.html", "#task=multiq&lang=en")
    count(page, "article.sample", 25)
    for shown in range(50, 1001, 25):
        page.locator("#more").click()
        count(page, "article.sample", shown)
    found = page.locator("article.sample .answer pre").all_text_contents()
    assert sorted(found) == sorted(f"{text} {i}" for i, text in enumerate(texts))
    assert page.locator("main :is(img, script, style, svg, iframe, base, meta, textarea)").count() == 0
    assert page.evaluate("window.broken") is None
    assert page.url.startswith(run.as_uri())


def test_thinking_has_its_filter_its_figure_and_a_folded_thought(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "thinking-site" / "index.html", "#lang=en&fig=thinking")
    page.wait_for_selector("#figure svg")
    assert "tokens a document" in page.locator("#figure").text_content()
    count(page, "#board tbody tr[data-id]", 2)
    page.select_option("#set", "thinking-on")
    row = page.locator("#board tbody tr[data-id]")
    count(page, "#board tbody tr[data-id]", 1)
    assert "thinks, 512 tokens" in row.text_content()
    assert "20% unfinished" in row.text_content()
    row.locator("a").first.click()
    page.locator("th.task a", has_text="multiq").click()
    thought = page.locator("details.thought").first
    thought.wait_for()
    assert thought.get_attribute("open") is None
    thought.locator("summary").click()
    assert NASTY in thought.locator("pre").text_content()
    assert page.locator("details.thought img").count() == 0
    assert page.locator("details.thought summary", has_text="did not end").count() == 4
    assert not watched.faults
    assert all(url.startswith("file:") for url in watched.requests)


def test_a_phone_shows_cards_without_sideways_scrolling(browser: Any, folder: Path) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 800}, locale="ru-RU")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    site = folder / "site"
    run = next((site / "runs").glob("strong-*"))
    for file in (site / "index.html", run / "index.html", run / "samples.html", folder / "compare" / "index.html"):
        page.goto(file.as_uri())
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, file
        assert page.locator("html").get_attribute("lang") == "ru"
    context.close()


def test_buttons_and_fields_have_names(watched: Watched, folder: Path) -> None:
    page = watched.open(folder / "site" / "index.html")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a')].filter((n) => !(n.getAttribute('aria-label')
        || n.textContent.trim() || n.closest('label')?.textContent.trim())).map((n) => n.outerHTML.slice(0, 80))"""
    )
    assert json.dumps(unnamed) == "[]"


def test_the_page_of_an_arena(watched: Watched, tmp_path: Path) -> None:
    for seed, name in enumerate(("best", "poor", "judge")):
        make_model(tmp_path / name, chat=True, seed=seed)
    prompts = tmp_path / "p.txt"
    prompts.write_text(f"{NASTY}\nВторой запрос\n", encoding="utf-8")

    def shouting(player: Any, request: Any) -> Answer:
        return Answer(request.id, text=f"{NASTY} качество {9 if player.name == 'best' else 1}.", tokens=(1,))

    arena = hold(tmp_path, prompts, tmp_path / "out", House(writer=shouting))
    page = watched.open(arena.path / "index.html")
    count(page, "article.sample", 2)
    count(page, "article.sample img", 0)
    assert page.locator("#models tbody .name").all_inner_texts() == ["best", "poor"]
    assert NASTY.split()[0] in page.locator("article .prompt pre").first.inner_text()
    assert page.locator("article .verdict").all_inner_texts() == ["▲ best", "▲ best"]
    page.locator("#lang").click()
    assert page.locator("h1").inner_text() == "Сравнение с судьёй"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.locator("body").bounding_box()["width"] <= 390
