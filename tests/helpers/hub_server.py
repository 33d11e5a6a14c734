"""A server on loopback that answers as the Hugging Face hub, with what can go wrong there."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.loopback import running
from tests.helpers.waiting import HANG_SECONDS

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 100  # bytes from which the hub keeps a file in LFS, and tells its SHA-256
TOKEN = "let-me-in"
API = re.compile(r"/api/(?P<kind>datasets|models)/(?P<name>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<rest>.+)")
FILE = re.compile(r"/(datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<path>.+)")


class HubServer(ThreadingHTTPServer):
    """One repository, under each name of `names` (empty: under every name), with the files `files`."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes], *names: str) -> None:
        super().__init__(("127.0.0.1", 0), HubAnswer)
        self.files, self.names, self.newest = dict(files), set(names), COMMIT
        self.damaged: dict[str, bytes] = {}  # other bytes than those that the hub promises
        self.gated = False
        self.ranges = True
        self.breaks: list[int] = []  # bytes after which the next downloads break off
        self.status = 200  # of the answers with bytes of files
        self.sent: list[tuple[str, str, int]] = []  # path, Range and bytes of each download
        self.together = 0  # downloads that wait for each other, so that they are certainly open at once
        self.met = threading.Barrier(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def expect_together(self, count: int) -> None:
        """Hold each download back until `count` downloads are open."""
        self.together, self.met = count, threading.Barrier(count)


class HubAnswer(BaseHTTPRequestHandler):
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        found = API.fullmatch(path) or FILE.fullmatch(path)
        if self.server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(403, headers={"X-Error-Code": "GatedRepo"})
        if found is None or (self.server.names and found["name"] not in self.server.names):
            return self._answer(401, headers={"X-Error-Code": "RepoNotFound"})
        if "path" in found.groupdict():
            return self._file(found["path"])
        if found["what"] == "revision":
            return self._revision(found["name"], found["rest"])
        folder = found["rest"].partition("/")[2]
        return self._tree(folder, deep=parse_qs(address.query).get("recursive", [""])[0].lower() == "true")

    def _revision(self, name: str, revision: str) -> None:
        if revision != "main" and not re.fullmatch("[0-9a-f]{40}", revision):
            return self._answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        sha = self.server.newest if revision == "main" else revision
        return self._json({"id": name, "sha": sha, "siblings": [], "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, folder: str, *, deep: bool) -> None:
        below = f"{folder}/" if folder else ""
        listed = [name for name in self.server.files if name.startswith(below)]
        listed = [name for name in listed if deep or "/" not in name.removeprefix(below)]
        self._json([self._entry(name, self.server.files[name]) for name in listed])

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
        if len(data) >= LARGE:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, name: str) -> None:
        if self.server.status != 200:
            return self._answer(self.server.status)
        promised = self.server.files[name]
        data = self.server.damaged.get(name, promised)
        etag = hashlib.sha256(promised).hexdigest() if len(promised) >= LARGE else _git(promised)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            return self._answer(200, headers=headers, length=len(data))
        if self.server.together:
            self.server.met.wait(HANG_SECONDS)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.server.ranges else 0
        end = int(asked[2]) + 1 if asked and asked[2] and self.server.ranges else len(data)
        part = data[start:end]
        status = 206 if asked and self.server.ranges else 200
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        cut = self.server.breaks.pop(0) if self.server.breaks else len(part)
        self.server.sent.append((name, self.headers.get("Range", ""), len(part[:cut])))
        return self._answer(status, part[:cut], headers=headers, length=len(part))

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _answer(
        self, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def hub_server(files: Mapping[str, bytes], *names: str) -> Iterator[HubServer]:
    """A running server."""
    with running(HubServer(files, *names)) as server:
        yield server
