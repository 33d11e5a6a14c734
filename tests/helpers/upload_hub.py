"""A hub on loopback that takes uploads: repositories, large files, and commits."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.helpers.hub_server import COMMIT, LARGE, TOKEN, HubAnswer, HubServer
from tests.helpers.loopback import running

OWNER = "team"  # the namespace that the token may write to


class UploadHub(HubServer):
    """A hub with one repository, which exists if `names` holds its name."""

    def __init__(self, files: Mapping[str, bytes], *names: str) -> None:
        super().__init__(files, "nobody/nothing", *names)
        self.RequestHandlerClass = UploadAnswer
        self.blobs: dict[str, bytes] = {}  # large files that were sent, by SHA-256
        self.put: list[str] = []  # SHA-256 of each large file, as often as it was sent
        self.private: bool | None = None
        self.commits: list[str] = []
        self.largest_take = 0  # number of large files that are taken before each further one breaks; 0: all
        self.one_at_a_time = threading.Lock()  # a client sends several files at once


class UploadAnswer(HubAnswer):
    server: UploadHub

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        if self.path == "/api/whoami-v2":
            return self._json({"name": "me"}) if self._trusted() else self._answer(401)
        return super().do_GET()

    def do_POST(self) -> None:  # noqa: N802
        body = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else self._chunks()
        )
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if not self._trusted():
            return self._answer(401)
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path.endswith("/preupload/main"):
            return self._json({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            return self._json({"transfer": "basic", "objects": [self._object(o) for o in json.loads(body)["objects"]]})
        assert self.path.endswith("/commit/main"), self.path
        return self._commit([json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:  # noqa: N802
        data = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == digest
        with self.server.one_at_a_time:
            if self.server.largest_take and len(self.server.put) >= self.server.largest_take:
                return self._answer(400)
            self.server.blobs[digest] = data
            self.server.put.append(digest)
        return self._answer(200)

    def _trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _create(self, asked: dict[str, Any]) -> None:
        if asked.get("organization") != OWNER:
            return self._answer(403)
        name = f"{asked['organization']}/{asked['name']}"
        there = {"url": f"{self.server.url}/{name}"}
        if name in self.server.names:
            return self._answer(409, json.dumps(there).encode())
        self.server.names.add(name)
        self.server.private = asked.get("private", asked.get("visibility") == "private")
        return self._json(there)

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] >= LARGE else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
        return asked if asked["oid"] in self.server.blobs else {**asked, "actions": upload}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        self.server.files = files
        name = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})


@contextmanager
def upload_hub(files: Mapping[str, bytes], *names: str) -> Iterator[UploadHub]:
    """A running server."""
    with running(UploadHub(files, *names)) as server:
        yield server
