"""kube-router as a process beside the test cluster, so that its one node enforces NetworkPolicies."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.helpers.kubectl import kubectl
from tests.helpers.waiting import HANG_SECONDS

TOOLS = ("kube-router", "iptables", "ipset")
CHAINS = ("KUBE-ROUTER-", "KUBE-POD-FW-", "KUBE-NWPLCY-")
SETS = ("KUBE-SRC-", "KUBE-DST-")


def what_is_missing() -> str:
    """Why this machine cannot enforce the policies of the cluster's node; empty if it can."""
    if lost := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(lost)} not on PATH (`make kube-router`; a package brings ipset)"
    if os.geteuid():
        return "kube-router needs root"
    addresses = {entry.address for card in psutil.net_if_addrs().values() for entry in card}
    if not addresses & set(_of_node('{.items[*].status.addresses[?(@.type=="InternalIP")].address}')):
        return "the node of the cluster is another machine"
    return ""


@contextmanager
def enforcer(log: Path) -> Iterator[None]:
    """Run kube-router; then take its chains and sets out of the kernel, which it leaves behind."""
    (node,) = _of_node("{.items[0].metadata.name}")
    command = ["kube-router", "--run-router=false", "--run-service-proxy=false", "--run-firewall=true", "-v=1"]
    command += [f"--kubeconfig={os.environ['KUBECONFIG']}", f"--hostname-override={node}", "--health-port=0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
        assert process.poll() is None, log.read_text()[-3000:]
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)
        _clean_up()


def _of_node(path: str) -> list[str]:
    return kubectl("get", "nodes", "-o", f"jsonpath={path}").split()


def _clean_up() -> None:
    rules = [shlex.split(line) for line in _run("iptables", "-S").splitlines()]
    for what, chain, *rest in rules:
        if what == "-A" and not chain.startswith(CHAINS) and any(word.startswith(CHAINS) for word in rest):
            _run("iptables", "-D", chain, *rest)
    chains = [chain for what, chain, *_ in rules if what == "-N" and chain.startswith(CHAINS)]
    for action in ("-F", "-X"):
        for chain in chains:
            _run("iptables", action, chain)
    for name in _run("ipset", "list", "-n").split():
        if name.startswith(SETS):
            _run("ipset", "destroy", name)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
