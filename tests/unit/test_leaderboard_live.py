"""A board that is kept open: its feed, its typed table, what its server gives away, and that it follows its records."""

import http.client
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from darumeru.errors import UserError
from darumeru.leaderboard import served
from darumeru.leaderboard.board import make_board, to_frame
from darumeru.leaderboard.feed import ITEMS, feed_json
from darumeru.leaderboard.live import Live
from darumeru.leaderboard.load import suite_of
from darumeru.leaderboard.published import read_published
from darumeru.leaderboard.server import Pages, address_of, listen
from support.commands import call
from support.synthetic import TASKS, edited, make_run

FEW = TASKS[3:6]


# -- the feed ---------------------------------------------------------------------------------------------------------


def table(**means: float) -> dict[str, Any]:
    rows = [
        {"id": name, "name": f"model {name}", "published": False, "pool": "p", "mode": "instruct", "shots": 0,
         "finished": f"2026-01-0{n}T00:00:00+00:00", "scores": {"micro_avg": {"value": mean, "low": 0, "high": 1}}}
        for n, (name, mean) in enumerate(means.items(), start=1)
    ]  # fmt: skip
    return {"title": "Board", "rows": [*rows, {"id": "paper", "published": True}]}


def told(folder: Path, **means: float) -> list[dict[str, Any]]:
    """The items of a feed after a build in a folder, which then holds it."""
    feed = feed_json(table(**means), folder)
    folder.mkdir(exist_ok=True)
    (folder / "table.json").write_text(json.dumps(table(**means)))
    (folder / "feed.json").write_text(json.dumps(feed))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    ids = [item["id"] for item in feed["items"]]
    assert len(set(ids)) == len(ids)
    return list(feed["items"])


def test_a_feed_tells_rows_that_came_and_scores_that_changed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = told(site, a=0.5, b=0.6)
    assert [item["title"] for item in first] == ["model b: new, mean 0.600", "model a: new, mean 0.500"]
    assert first[0]["date_published"] == "2026-01-02T00:00:00+00:00"
    assert told(site, a=0.5, b=0.6) == first, "nothing changed"
    assert told(site, a=0.50001, b=0.6) == first, "nor does what nobody sees"
    changed = told(site, a=0.4, b=0.6)
    assert changed[0]["content_text"] == "model a: micro_avg 0.500 → 0.400."
    assert changed[1:] == first
    told(site, a=0.5, b=0.6)
    again = told(site, a=0.4, b=0.6)
    assert again[0]["content_text"] == changed[0]["content_text"], "a change that comes back is told again"
    assert len(again) == 5
    told(site, b=0.6)
    assert told(site, a=0.5, b=0.6) == again, "a row that was away for a while is not new"


def test_a_feed_is_bounded_and_survives_what_others_wrote_into_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    told(site, a=0.0)
    for n in range(1, ITEMS + 5):
        items = told(site, a=n / (ITEMS + 5))
    assert len(items) == ITEMS
    for text in ("{", "[]", '{"items": {}}', '{"items": [1, {"id": "x"}, {"id": 1, "_darumeru": {}}]}'):
        (site / "feed.json").write_text(text)
        assert feed_json(table(a=0.1, b=0.2), site)["items"][0]["title"] == "model b: new, mean 0.200"
    (site / "table.json").write_text('{"rows": [{"id": "a"}]}')
    assert [item["tags"] for item in feed_json(table(a=0.1), site)["items"]] == [], "what it was is not known"


def test_items_have_addresses_where_the_site_has_one() -> None:
    feed = feed_json(table(a=0.5), None, "https://example.org/board")
    assert feed["feed_url"] == "https://example.org/board/feed.json"
    assert feed["items"][0]["url"] == "https://example.org/board/index.html#row=a"
    assert "url" not in feed_json(table(a=0.5), None)["items"][0]


# -- the table --------------------------------------------------------------------------------------------------------


def test_a_column_has_its_type_also_where_it_has_no_value() -> None:
    rows = read_published()[:2]
    frame = to_frame(make_board(rows, suite_of(rows)))
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["rank"] == "Int64"
    assert kinds["micro_avg"] == kinds["micro_avg_low"] == kinds["parus"] == "float64"
    assert kinds["thinking"] == kinds["date"] == kinds["model"] == "string"


# -- the server -------------------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    from darumeru.leaderboard.live import _serving

    server = listen("127.0.0.1", 0, Pages(folder))
    with _serving(server):
        yield address_of(server)
    server.server_close()


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask for a path as it stands: clients that know better would clean it."""
    host, _, port = address.removeprefix("http://").strip("/").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
    connection.close()
    return found


def test_only_what_lies_in_the_folder_is_served(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "runs" / "a b").mkdir(parents=True)
    (site / "index.html").write_text("<body>board</body>")
    (site / "runs" / "a b" / "index.html").write_text("<body>run</body>")
    (site / ".secret").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    (site / "link").symlink_to(tmp_path / "secret")
    with serving(site) as address:
        for path in ("/../secret", "/..%2fsecret", "/%2e%2e/secret", "/runs/../../secret", "/link", "/.secret", "/runs",
                     "//../secret", "/..\\secret", "/index.html/..", "/%00", "/nowhere", str(tmp_path / "secret"),
                     "/" + str(tmp_path / "secret")):  # fmt: skip
            status, content, _ = ask(address, path)
            assert status == 404, path
            assert b"secret" not in content
        status, content, headers = ask(address, "/")
        assert status == 200
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert b'<script src="/live.js" data-version="' in content
        assert b"run" in ask(address, "/runs/a%20b/")[1]
        assert ask(address, "/index.html", "HEAD")[:2] == (200, b"")
        assert ask(address, "/index.html", "POST")[0] == 501
        assert ask(address, "/", Host="evil.example:80")[0] == 403, "a name that was pointed at this machine"
        assert ask(address, "/", Host="localhost")[0] == 200
        assert b"live.js" not in (site / "index.html").read_bytes(), "the folder stays what it was"


def test_a_page_s_version_is_that_of_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "runs" / "a" / "data").mkdir(parents=True)
    files = [tmp_path / "index.html", tmp_path / "runs" / "a" / "samples.html", tmp_path / "data" / "board.js"]
    for file in [*files, tmp_path / "runs" / "a" / "data" / "index.js"]:
        file.write_text("1")
    pages = Pages(tmp_path)
    board, samples = pages.version("/"), pages.version("/runs/a/samples.html")
    (tmp_path / "data" / "board.js").write_text("1")
    os.utime(tmp_path / "data" / "board.js", (1, 1))
    assert pages.version("/index.html") == board, "written anew, and the same"
    (tmp_path / "data" / "board.js").write_text("2")
    assert pages.version("/") != board
    assert pages.version("/runs/a/samples.html") == samples, "whoever reads a sample is left alone"
    assert pages.version("/nowhere.html") == ""


def test_where_it_cannot_listen_it_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"'127\.0\.0\.1:{port}' cannot be listened on .*--port 0 for any"):
            listen("127.0.0.1", port, Pages(tmp_path))
        make_run(tmp_path / "runs" / "a", "one", tasks=FEW)
        out = call("leaderboard", tmp_path / "runs", "--serve", "--port", port, code=2)
        assert "cannot be listened on" in out
    with pytest.raises(UserError, match="from 1 to 65535"):
        listen("127.0.0.1", 70000, Pages(tmp_path))
    with pytest.raises(UserError, match=r"--host 'no\.such\.host\.invalid' is not known"):
        listen("no.such.host.invalid", 0, Pages(tmp_path))


def test_what_is_asked_must_go_together(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", "one", tasks=FEW)
    (tmp_path / "empty").mkdir()
    assert "Give --output FOLDER" in call("leaderboard", tmp_path / "runs", code=2)
    assert "add --serve" in call("leaderboard", tmp_path / "runs", "--output", tmp_path / "s", "--port", "1", code=2)
    assert "--url 'x' must begin" in call(
        "leaderboard", tmp_path / "runs", "--output", tmp_path / "s", "--url", "x", code=2
    )
    assert "holds no run" in call("leaderboard", tmp_path / "empty", "--serve", "--port", "0", code=2)
    assert not (tmp_path / "s").exists()


# -- records that change ----------------------------------------------------------------------------------------------


def rebuilt(live: Live) -> bool:
    """Look until what has changed has come to rest, and say whether it was built."""
    return any(live.look() for _ in range(2))


def test_a_board_follows_its_records(tmp_path: Path) -> None:
    runs, site = tmp_path / "runs", tmp_path / "site"
    about = tmp_path / "about.yaml"
    about.write_text("{}")
    make_run(runs / "a", "one", tasks=FEW, seed=1)
    make_run(runs / "b", "two", tasks=FEW, seed=2)
    said: list[str] = []
    with served([runs], site, port=0, report=said.append, published=False, about=about) as live:
        status, content, _ = ask(live.address, "/data/board.js")
        assert status == 200
        assert b'"name":"one"' in content
        version = live.pages.version("/")
        assert not rebuilt(live), "nothing has changed"
        assert pyarrow.parquet.read_table(site / "table.parquet").column("model").to_pylist() == ["one", "two"]
        assert json.loads((site / "feed.json").read_text())["home_page_url"] == live.address

        # A run begins, and its answers come: nothing to build for but that it is there.
        begun = make_run(runs / "c", "three", tasks=FEW, seed=3, complete=False)
        assert rebuilt(live)
        assert "Not shown: three: The run was not finished. Start the same 'darumeru run' again." in said
        journal = {"seconds": 1, "answers": [{"id": "x/0/0"}, {"id": "x/1/0"}]}
        (begun / "journal.jsonl").write_text(json.dumps(journal) + '\n{"seconds": 1, "ans')
        assert not rebuilt(live)
        assert b'"running":[{"name":"three","answers":2}]' in ask(live.address, "/now.js?page=/")[1]
        (begun / "journal.jsonl").unlink()

        # It is finished; what was read of the others is not read again.
        kept = {p.name.split("-")[0]: (p / "data" / f"{FEW[0]}-0.js").stat().st_ino for p in (site / "runs").iterdir()}
        make_run(begun, "three", tasks=FEW, seed=3)
        assert rebuilt(live)
        rows = {row["name"] for row in json.loads((site / "table.json").read_text())["rows"]}
        assert rows == {"one", "two", "three"}
        now = {p.name.split("-")[0]: (p / "data" / f"{FEW[0]}-0.js").stat().st_ino for p in (site / "runs").iterdir()}
        assert {name: now[name] for name in kept} == kept
        assert live.pages.version("/") != version
        assert json.loads((site / "feed.json").read_text())["items"][0]["title"].startswith("three: new")

        # A record that breaks is named, the others stay; a board that cannot be built stays as it was.
        header = (runs / "b" / "header.json").read_text()
        (runs / "b" / "header.json").write_text(header[: len(header) // 2])
        assert rebuilt(live)
        assert any(s.startswith("Not shown: b: ") and "is not valid JSON" in s for s in said)
        assert b'"name":"two"' not in ask(live.address, "/data/board.js")[1]
        (runs / "b" / "header.json").write_text(header)
        assert rebuilt(live)
        about.write_text("one: [")
        before = ask(live.address, "/data/board.js")[1]
        assert rebuilt(live)
        assert "is not valid YAML" in said[-1]
        assert said[-1].endswith("The board stays as it was.")
        assert ask(live.address, "/data/board.js")[1] == before
        assert b'"failed":true' in ask(live.address, "/now.js?page=/")[1]
        shutil.rmtree(runs)
        assert rebuilt(live)
        assert "Not built: " in said[-1]
        assert ask(live.address, "/data/board.js")[1] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["about.yaml", "site"], "no half-built site is left"


def test_a_record_scored_anew_shows_its_new_samples(tmp_path: Path) -> None:
    """Its page has the same name; what was read of the record before must not come back, also after a failed build."""
    runs, site, about = tmp_path / "runs", tmp_path / "site", tmp_path / "about.yaml"
    about.write_text("{}")
    make_run(runs / "a", "one", tasks=FEW, seed=1)
    with served([runs], site, port=0, published=False, about=about) as live:
        [page] = (site / "runs").iterdir()
        lines = (runs / "a" / "samples" / f"{FEW[0]}.jsonl").read_text().replace("дважды два", "трижды три")
        (runs / "a" / "samples" / f"{FEW[0]}.jsonl").write_text(lines)
        edited(runs / "a", "scores.json", lambda scores: scores.update(finished="2026-01-03T00:00:00+00:00"))
        manifest = json.loads((runs / "a" / "manifest.json").read_text())
        from darumeru.files import file_sha256

        manifest["files"] = {n: file_sha256(runs / "a" / n) for n in manifest["files"]}
        (runs / "a" / "manifest.json").write_text(json.dumps(manifest))
        about.write_text("one: {url: http://x}")
        assert rebuilt(live)
        assert live.pages.state["failed"]
        about.write_text("{}")
        assert rebuilt(live)
        assert not live.pages.state["failed"]
        assert "трижды три" in (page / "data" / f"{FEW[0]}-0.js").read_text(encoding="utf-8")
