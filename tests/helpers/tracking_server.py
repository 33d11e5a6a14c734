"""MLflow with users, with the arguments and settings of manifests/base, on loopback."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mantis.tracking.reachability import TrackingAwayError
from tests.helpers.loopback import free_port, until_healthy
from tests.helpers.paths import ROOT
from tests.helpers.waiting import HANG_SECONDS
from tests.helpers.yaml_files import documents

T = TypeVar("T")

BASE = ROOT / "manifests/base"
ADMIN, PASSWORD = "admin", "the password of the administrator"
USER = ("mantis", "the password of those that log runs")  # make-users creates it; it is no administrator


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """A running server and the environment of its clients."""

    url: str

    def call(self, path: str, body: Mapping[str, Any], user: tuple[str, str] = (ADMIN, PASSWORD)) -> Any:
        """See `call_mlflow`; the administrator asks, unless a user is given."""
        return call_mlflow(self.url, path, body, user)

    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": USER[0],
            "MLFLOW_TRACKING_PASSWORD": USER[1],
        }


def container() -> dict[str, object]:
    """MLflow's container in the base."""
    (stateful,) = [each for each in documents((BASE / "mlflow.yaml").read_text()) if each["kind"] == "StatefulSet"]
    return dict(stateful["spec"]["template"]["spec"]["containers"][0])


def arguments(folder: Path, port: int) -> list[str]:
    """The manifest's arguments, with `folder` for the volume, another port, and one worker."""
    given = container()["args"]
    assert isinstance(given, list)
    replaced = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}", "--workers=2": "--workers=1"}
    assert set(replaced) < set(given)
    return [str(replaced.get(each, each)).replace("/data/", f"{folder}/") for each in given]


def settings(folder: Path) -> dict[str, str]:
    """The manifest's settings and Secret, with `folder` for the volume."""
    lines = [line for line in (BASE / "mlflow/settings.env").read_text().splitlines() if line and line[0] != "#"]
    found = {name: value for name, _, value in (line.partition("=") for line in lines)}
    (folder / "auth.ini").write_text((BASE / "mlflow/auth.ini").read_text().replace("/data/", f"{folder}/"))
    secret = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret key"}
    found |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), **secret}
    return {name: value.replace("/data/", f"{folder}/") for name, value in found.items()}


@contextmanager
def tracking_server(
    folder: Path, *, given: Mapping[str, str] | None = None, more: Sequence[str] = (), authority: Path | None = None
) -> Iterator[TrackingServer]:
    """Migrate the tables and serve until the context ends, as the pod does.

    Args:
        folder: stands for the volume of the pod.
        given: settings that replace those of the manifest, as a Secret's do.
        more: arguments after those of the manifest.
        authority: certificate authority of the server; None: it speaks HTTP.
    """
    port = free_port()
    environment = os.environ | settings(folder) | dict(given or {})
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", environment["MLFLOW_BACKEND_STORE_URI"]]
    subprocess.run(upgrade, env=environment, check=True, capture_output=True, timeout=HANG_SECONDS)
    command = [sys.executable, "-m", "mlflow", *arguments(folder, port), *more]
    url = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until_healthy(url, process, folder / "server.log", authority)
        create_user(url, authority)
        yield TrackingServer(url=url)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def call_mlflow(
    url: str, path: str, body: Mapping[str, Any], user: tuple[str, str], authority: Path | None = None
) -> Any:
    """Answer of MLflow's REST API to a user with a password; HTTPError where it refuses."""
    login = b64encode(":".join(user).encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", json.dumps(body).encode(), headers, method="POST")
    trusting = ssl.create_default_context(cafile=str(authority)) if authority else None
    with urllib.request.urlopen(request, timeout=HANG_SECONDS, context=trusting) as answer:
        return json.load(answer)


def create_user(url: str, authority: Path | None) -> None:
    """Create the user of runs as the administrator. A restored database has it."""
    try:
        call_mlflow(url, "users/create", {"username": USER[0], "password": USER[1]}, (ADMIN, PASSWORD), authority)
    except urllib.error.HTTPError as error:
        if "RESOURCE_ALREADY_EXISTS" not in error.read().decode():
            raise


def patiently(ask: Callable[[], T]) -> T:
    """Ask MLflow, and ask again while a busy machine lets it be away; the product itself does not wait for it."""
    until = time.monotonic() + HANG_SECONDS
    while True:
        try:
            return ask()
        except TrackingAwayError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
