"""A folder of pages at a local address; each page asks now and then whether it is still the newest.

The files are served as they lie in the folder. Into pages a script is put that asks `now.js` for the page's version, and loads
the page again where it is another. That is a script too: the pages' policy lets them fetch nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from darumeru.errors import UserError
from darumeru.web.pages import script

LIVE = Path(__file__).parent / "web" / "live" / "live.js"
_TYPES = {
    ".css": "text/css", ".csv": "text/csv", ".html": "text/html", ".js": "text/javascript", ".json": "application/json",
    ".md": "text/markdown", ".png": "image/png", ".svg": "image/svg+xml", ".tex": "text/plain",
}  # fmt: skip


def _names_this_machine(host: str) -> bool:
    """Return whether a `Host` header names the machine itself: `localhost`, or an address that only it reaches."""
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Pages:
    """The files of a site, which a new build may replace at any moment.

    Args:
        folder: of the site.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: Mapping[str, Any] = {}
        """What every page is told: when it was built, and whether a later build failed."""

    def find(self, address: str) -> Path | None:
        """Return the file at the path of a URL; None for what is not in the folder, hidden, or no file."""
        parts = [part for part in unquote(address).split("/") if part] or ["index.html"]
        if address.endswith("/") and parts != ["index.html"]:
            parts.append("index.html")
        if any(part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        try:
            root = self.folder.resolve()
            file = root.joinpath(*parts).resolve()
            return file if file.is_relative_to(root) and file.is_file() else None
        except (OSError, ValueError):
            return None

    def read(self, address: str) -> tuple[Path, bytes] | None:
        """Return a file and its bytes; waits for a build that is just taking its place."""
        for attempt in range(10):
            file = self.find(address)
            try:
                if file is not None:
                    return file, file.read_bytes()
            except OSError:
                pass
            if attempt and self.folder.is_dir():
                return None
            time.sleep(0.05)
        return None

    def version(self, address: str) -> str:
        """Return the fingerprint of what a page shows: of itself and of the data beside it."""
        found = self.read(address)
        if found is None:
            return ""
        file, content = found
        digest = hashlib.sha256(content)
        for data in sorted((file.parent / "data").glob("*.js")):
            try:
                stat = data.stat()
            except OSError:
                continue
            # The board's own data are written anew by each build; a run's samples are linked while they stay the same.
            same = data.read_bytes() if data.name == "board.js" else f"{stat.st_mtime_ns} {stat.st_size}".encode()
            digest.update(data.name.encode() + same)
        return digest.hexdigest()[:16]


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; nothing that a request says is ever executed or written."""

    server_version, sys_version = "darumeru", ""
    timeout = 60

    def __init__(self, *args: Any, pages: Pages, local: bool) -> None:
        self.pages, self.local = pages, local
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with a file."""
        status, kind, content = self._found()
        text = kind.startswith("text/") or kind.endswith(("json", "xml"))
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _found(self) -> tuple[int, str, bytes]:
        """Return status, type and content of what is asked for."""
        if self.local and not _names_this_machine(self.headers.get("Host", "")):
            # A page elsewhere whose name was pointed at this machine must not read the board.
            return 403, "text/plain", b"This address is for this machine only.\n"
        asked = urlsplit(self.path)
        if asked.path == "/live.js":
            return 200, _TYPES[".js"], LIVE.read_bytes()
        if asked.path == "/now.js":
            page = parse_qs(asked.query).get("page", ["/"])[0]
            told = {**self.pages.state, "version": self.pages.version(page)}
            return 200, _TYPES[".js"], script("live", told).encode()
        found = self.pages.read(asked.path)
        if found is None:
            return 404, "text/plain", b"There is no such file on this board.\n"
        file, content = found
        if file.suffix == ".html":
            version = self.pages.version(asked.path)
            live = f'<script src="/live.js" data-version="{version}"></script>\n</body>'
            content = content.replace(b"</body>", live.encode())
        return 200, _TYPES.get(file.suffix, "application/octet-stream"), content

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal tells of builds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a reader who leaves while a page is sent is no failure."""


def listen(host: str, port: int, pages: Pages) -> ThreadingHTTPServer:
    """Return a server that is bound and not yet started.

    Args:
        host: name or address of this machine.
        port: 0 for any free one.
        pages: that it serves.

    Raises:
        UserError: the port is taken or not allowed, or the host is not of this machine.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port} is no port: give one from 1 to 65535, or 0 for any that is free.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host '{host}' is not known. Give 127.0.0.1, or an address of this machine.") from None
    local = ipaddress.ip_address(address[0]).is_loopback

    class Bound(_Server):
        address_family = family

    try:
        return Bound((str(address[0]), port), partial(_Handler, pages=pages, local=local))
    except PermissionError:
        raise UserError(
            f"--port {port} is not allowed for you: give one above 1023, or 0 for any that is free."
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"'{host}:{port}' cannot be listened on ({reason}). Give another --port, or --port 0 for any that is free."
        ) from None


def address_of(server: ThreadingHTTPServer) -> str:
    """Return the URL of a server."""
    host, port = server.server_address[:2]
    name = f"[{host!s}]" if ":" in str(host) else str(host)
    return f"http://{name}:{port}/"
