"""The Jobs make-secrets and make-users of the manifests, run against an API server in memory and MinIO on loopback."""

import base64
import importlib.util
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import HTTPError

from tests.fixtures.stores import ACCESS_KEY, SECRET_KEY
from tests.helpers.paths import ROOT

SCRIPTS = ROOT / "manifests/base/bootstrap"
TLS = ROOT / "manifests/tls"
WRITER = ("mantis", "the secret key of the writer")
RESULTS = ("mantis-results", "the secret key of the steps that evaluate")
READER = ("mantis-read", "the secret key of the reader")


def script(path: Path, environment: Mapping[str, str]) -> Any:
    """The module of a script, loaded with these variables."""
    with mock.patch.dict(os.environ, environment):
        specification = importlib.util.spec_from_file_location(path.stem, path)
        assert specification is not None
        assert specification.loader is not None
        module: Any = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    return module


def make_users(folder: Path, url: str) -> Any:
    """Create bucket and users as the Job does, with its Secrets in `folder`; returns the script's module."""
    secrets = {
        "store/endpoint": url,
        "store/user": WRITER[0],
        "store/password": WRITER[1],
        "store-results/user": RESULTS[0],
        "store-results/password": RESULTS[1],
        "store-read/user": READER[0],
        "store-read/password": READER[1],
        "minio-root/user": ACCESS_KEY,
        "minio-root/password": SECRET_KEY,
    }
    for name, value in secrets.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
    module = script(SCRIPTS / "make_users.py", {"NAMESPACE": "mantis", "SECRETS": str(folder)})
    module.set_up_minio()
    return module


class SecretsInMemory:
    """The Secrets of an API server. It answers make-secrets, whose account may not replace a Secret."""

    def __init__(self, folder: Path, *, tls: bool, steps: str = "mantis-steps") -> None:
        """The namespace of the Job is `mantis`; `folder` is for the file of its account."""
        (folder / "namespace").write_text("mantis")
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}
        self.created: list[tuple[str, str]] = []  # in their order
        environment = {
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            "KUBERNETES_SERVICE_PORT": "443",
            "STEP_NAMESPACES": steps,
        }
        self._environment = environment | ({"TLS": "true"} if tls else {})
        self._folder = folder

    def run(self) -> None:
        """Run the Job once."""
        module = script(SCRIPTS / "make_secrets.py", self._environment)
        module.ACCOUNT, module.request = self._folder, self._request
        with mock.patch.object(sys, "path", [str(TLS), *sys.path]), mock.patch.dict(os.environ, self._environment):
            module.main()

    def values(self, name: str, namespace: str = "mantis") -> dict[str, str]:
        """The decoded values of a Secret."""
        data = self.kept[namespace, name]["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        _, _, namespace, _, *rest = path.split("/")
        if method == "POST":
            assert body is not None
            place = (namespace, str(body["metadata"]["name"]))
            if place in self.kept:
                raise HTTPError(path, 409, "it exists", None, io.BytesIO())  # type: ignore[arg-type]
            texts = {
                key: base64.b64encode(value.encode()).decode() for key, value in body.get("stringData", {}).items()
            }
            self.kept[place] = {"metadata": body["metadata"], "data": texts | dict(body.get("data", {}))}
            self.created.append(place)
            return self.kept[place]
        place = (namespace, rest[0])
        if place not in self.kept:
            raise HTTPError(path, 404, "there is none", None, io.BytesIO())  # type: ignore[arg-type]
        if method == "PATCH":
            assert body is not None
            self.kept[place]["data"] |= body["data"]
        return self.kept[place]
