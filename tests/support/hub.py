"""A hub on this machine: a server that speaks as much of the Hugging Face hub's protocol as its real clients ask for.

`huggingface_hub` and `datasets` read their environment when they are imported, so they run in processes of their own, with
`Hub.environment`. What the server holds are repositories with commits and branches; what it does wrong is a list of `Trouble`s.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from support.quiet import QuietServer

ROOT = Path(__file__).parents[2]
HTML = b"<!DOCTYPE html><html><title>Welcome to our Wi-Fi</title>Log in, please.</html>"
_ROUTES = [
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/tree/(?P<rev>[^/]+)(?:/(?P<path>.*))?", "tree"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/paths-info/(?P<rev>[^/]+)", "paths"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/commits/(?P<rev>[^/]+)", "commits"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/refs", "refs"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/preupload/(?P<rev>[^/]+)", "preupload"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)/commit/(?P<rev>[^/]+)", "commit"),
    (r"/api/(?P<kind>datasets|models)/(?P<id>[^/]+/[^/]+)(?:/revision/(?P<rev>[^/]+))?", "info"),
    (r"/(?P<kind>datasets)/(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "file"),
    (r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "file"),
]


@dataclass
class Repository:
    """A data set or model with its history."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit → path → content."""
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    titles: dict[str, str] = field(default_factory=dict)
    """Pull request, such as refs/pr/1, which is a branch too → its title."""

    def commit(self, files: Mapping[str, bytes | str], branch: str = "main") -> str:
        """Put files on a branch, which holds nothing else afterwards; return the commit."""
        content = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        sha = hashlib.sha1(repr((len(self.commits), sorted(content.items()))).encode()).hexdigest()  # noqa: S324
        self.commits[sha], self.branches[branch] = content, sha
        return sha

    def change(self, files: Mapping[str, bytes | str | None], branch: str = "main") -> str:
        """Commit changed files on top of a branch; None removes one."""
        changed = {**self.commits[self.branches[branch]], **files}
        return self.commit({path: data for path, data in changed.items() if data is not None}, branch)


@dataclass
class Trouble:
    """What goes wrong with the requests whose `METHOD path` matches a pattern."""

    pattern: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    html: bool = False
    """Answer with a web page."""
    cut: bool = False
    """Send half of the body, then hang up."""
    seconds: float = 0.0
    """Answer late."""
    after: int = 0
    """How many requests go well first."""
    times: int = 10**9
    """How often it goes wrong; then all is well."""


@dataclass
class Hub:
    """The server's content, its faults, and what it was asked."""

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    faults: list[Trouble] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """`METHOD path`, in order."""
    times: list[float] = field(default_factory=list)
    """When each came, in seconds."""

    def repository(self, name: str, kind: str = "datasets") -> Repository:
        """Return a repository, made if need be."""
        return self.repositories.setdefault((kind, name), Repository())

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Return the environment of a process whose clients talk to this hub and keep their cache in `home`."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()
        }
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            **more,
        }

    def serves(self, monkeypatch: pytest.MonkeyPatch, home: Path, offline: bool = False) -> None:
        """Have the clients of this process talk to this hub too, with their cache in `home`; or be without a network."""
        import datasets.config
        from huggingface_hub import constants

        template = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + template,
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HOME": str(home),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")

    def fetched(self) -> list[tuple[str, str, str]]:
        """Return repository, commit and path of the files that were fetched, in order."""
        found = [re.fullmatch(r"HEAD /datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request) for request in self.asked]
        return [(m[1], m[2], m[3]) for m in found if m]

    def fault(self, request: str) -> Trouble | None:
        """Return what shall go wrong with a request, and count it."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.form = parse_qs(self.body.decode())
        path = urlsplit(self.path).path
        request = f"{self.command} {path}"
        self.hub.asked.append(request)
        self.hub.times.append(time.monotonic())
        self.fault = self.hub.fault(request)
        if self.fault:
            time.sleep(self.fault.seconds)
            if self.fault.html:
                return self._send(HTML, {"Content-Type": "text/html"})
            if self.fault.status != 200:
                return self._send(b"", self.fault.headers, self.fault.status)
        if path == "/api/validate-yaml":  # what the card may say is the hub's affair
            return self._json({"errors": [], "warnings": []})
        for pattern, name in _ROUTES:
            if match := re.fullmatch(pattern, path):
                parts = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                return self._answer(name, parts)
        return self._error(404, "EntryNotFound")

    def _answer(self, name: str, parts: dict[str, str]) -> None:
        repository = self.hub.repositories.get((parts.get("kind", "models"), parts["id"]))
        signed_in = "Authorization" in self.headers
        if repository is None:
            return self._error(404 if signed_in else 401, "RepoNotFound")
        if repository.gated and not (name == "info" and "rev" not in parts):  # what it is may be read by everybody
            return self._error(403 if signed_in else 401, "GatedRepo")
        revision = parts.get("rev", "main")
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            return self._error(404, "RevisionNotFound")
        files = repository.commits[sha]
        if name in ("preupload", "commit") and not signed_in:
            return self._error(401, "Unauthorized")
        if name == "preupload":
            asked = json.loads(self.body)["files"]
            return self._json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        if name == "commit":
            return self._pull_request(repository, parts["id"])
        if name == "file":
            return self._file(sha, files, parts["path"])
        if name == "info":
            siblings = [{"rfilename": path} for path in sorted(files)]
            return self._json({"id": parts["id"], "sha": sha, "gated": repository.gated, "siblings": siblings})
        if name == "refs":
            branches = [
                {"name": b, "ref": f"refs/heads/{b}", "targetCommit": c} for b, c in repository.branches.items()
            ]
            return self._json({"branches": branches, "tags": [], "converts": []})
        if name == "commits":
            return self._json(
                [{"id": sha, "title": "", "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}]
            )
        entries = list(_entries(files))
        if name == "paths":
            wanted = set(self.form.get("paths", []))
            return self._json([entry for entry in entries if entry["path"] in wanted])
        inside = parts.get("path", "").strip("/")
        deep = "true" in parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower()
        below = [e for e in entries if not inside or e["path"].startswith(f"{inside}/")]
        if inside and not below:
            return self._error(404, "EntryNotFound")
        depth = len(inside.split("/")) if inside else 0
        return self._json([e for e in below if deep or e["path"].count("/") == depth])

    def _pull_request(self, repository: Repository, name: str) -> None:
        """Take what is sent as a pull request, on the commit that it names."""
        assert parse_qs(urlsplit(self.path).query) == {"create_pr": ["1"]}, "never straight onto the main branch"
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = {v["path"]: base64.b64decode(v["content"]) for v in (x["value"] for x in lines if x["key"] == "file")}
        head, branch = lines[0]["value"], f"refs/pr/{len(repository.titles) + 1}"
        repository.branches[branch] = head["parentCommit"]
        sha = repository.change(files, branch)
        repository.titles[branch] = head["summary"]
        page = f"{self.hub.url}/{name}"
        self._json(
            {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}",
             "pullRequestUrl": f"{page}/discussions/{len(repository.titles)}"}
        )  # fmt: skip

    def _file(self, sha: str, files: Mapping[str, bytes], path: str) -> None:
        if path not in files:
            return self._error(404, "EntryNotFound", {"X-Repo-Commit": sha})
        data = files[path]
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._send(data[first : last + 1], headers, 206)
        return self._send(data, headers)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: Mapping[str, str] = {}) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code, **headers}, status)

    def _send(self, body: bytes, headers: Mapping[str, str], status: int = 200) -> None:
        try:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if self.fault and self.fault.cut:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed, or waited no longer
            self.close_connection = True


def _oid(data: bytes) -> str:
    """Return the name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def _entries(files: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    folders = sorted({str(parent) for path in files for parent in Path(path).parents if str(parent) != "."})
    yield from ({"type": "directory", "oid": _oid(folder.encode()), "size": 0, "path": folder} for folder in folders)
    yield from ({"type": "file", "oid": _oid(d), "size": len(d), "path": p} for p, d in sorted(files.items()))


@contextmanager
def serve(port: int = 0) -> Iterator[Hub]:
    """Give a hub without any repository, on any free port, that answers until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = QuietServer(("127.0.0.1", port), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
