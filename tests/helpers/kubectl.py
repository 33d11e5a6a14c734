"""kubectl on the cluster of KUBECONFIG, and waiting for what it changes."""

import base64
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.helpers import waiting
from tests.helpers.loopback import free_port
from tests.helpers.waiting import HANG_SECONDS, Found


def kubectl(*arguments: object, stdin: str | None = None, check: bool = True) -> str:
    """Output of kubectl, both streams; with `check` a failure is an AssertionError."""
    command = ["kubectl", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def until(what: str, ready: Callable[[], Found], seconds: float) -> Found:
    """Wait for a true result of `ready`, with a pause that suits requests to a cluster."""
    return waiting.until(what, ready, seconds, pause=0.5)


def jobs_are_done() -> bool:
    """Whether each Job of an overlay is complete; one that ended long ago is tidied away at any time.

    A TrainJob that a person left in the namespace has Jobs, too.
    """
    each = "jsonpath={range .items[*]}{.metadata.name}={.status.succeeded} {end}"
    jobs = [job.partition("=") for job in kubectl("-n", "mantis", "get", "jobs", "-o", each).split()]
    return all(succeeded == "1" for name, _, succeeded in jobs if name in ("make-secrets", "make-users"))


@contextmanager
def forwarded(service: str, port: int, namespace: str = "mantis") -> Iterator[int]:
    """A port of this machine that leads to a service; connected anew whenever the connection ends."""
    here = free_port()
    leave = threading.Event()
    current: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        while not leave.is_set():
            command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}", f"{here}:{port}"]
            current[:] = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
            current[0].wait()
            leave.wait(0.3)

    def answers() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", here)) == 0

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(f"the port of {service}", answers, 60)
    yield here
    leave.set()
    current[0].terminate()
    thread.join(HANG_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Kube:
    """Clients of the cluster, and the functions of this module."""

    core: Any
    batch: Any
    kubectl = staticmethod(kubectl)
    until = staticmethod(until)
    jobs_are_done = staticmethod(jobs_are_done)
    forwarded = staticmethod(forwarded)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Keys and decoded values of a Secret."""
        data = self.core.read_namespaced_secret(name, namespace).data
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
