"""Judge the all-reduce of `mantis doctor --cluster`. docs/how-to/operate.md has the same limits for people."""

from typing import Any

from pipelines.doctor.machine_checks import Finding

# GB/s of NCCL's bus bandwidth. One card of 200 Gbit/s carries 25 GB/s, and NCCL reaches about 20. TCP stays below 5.
TCP, ONE_CARD = 5.0, 20.0
PCIE = 50.0  # GB/s between the GPUs of one A100 node: NVLink reaches more than 200, PCIe about 20

IMAGE = "Set cluster.image to an image of this version."
STORE = "Check the Secret mantis-store in the namespace of the ranks, and the network policies."
RDMA = (
    "NCCL uses TCP. Give the pods the cards (rdma/... in manifests/overlays/a100/runtime.yaml), name them in "
    "NCCL_IB_HCA, and use an image with libibverbs. RoCE also needs a network of each card: docs/how-to/operate.md."
)
CARDS = "Name all compute cards in NCCL_IB_HCA, and compare with `ib_write_bw` between two nodes."
NVLINK = "Look at `nvidia-smi topo -m` and `nvidia-smi nvlink -s` on the node: GPUs reach each other over PCIe."
MEMLOCK = "Start the nodes' container runtime with LimitMEMLOCK=infinity, because RDMA locks memory."


def judge_meeting(figures: dict[str, Any], *, ranks: int) -> Finding:
    """The finding of an all-reduce of `ranks` ranks, from the JSON that their first rank printed."""
    if figures.get("store"):
        return _finding(False, f"the store, from a pod: {figures['store']}", STORE)
    if figures["ranks"] != ranks or "memlock" not in figures:
        return _finding(False, f"{figures['ranks']} of {ranks} ranks met; the image may be of another version", IMAGE)
    speed, network, hosts = figures["gb_per_second"], figures.get("network", ""), len(figures["hosts"])
    pinned = "any amount" if figures["memlock"] < 0 else f"{figures['memlock'] / 2**20:,.1f} MiB"
    used = f" over {network}" if network else ""
    found = f"{ranks} ranks ({figures['device']}), {speed:.2f} GB/s{used}, may lock {pinned}"
    if figures["device"] != "cuda":
        return _finding(True, found, "")
    if hosts > 1 and (network.startswith("NET/Socket") or speed < TCP):
        return _finding(False, found, RDMA)
    if figures["memlock"] >= 0:
        return _finding(None, found, MEMLOCK)
    if hosts > 1 and speed < ONE_CARD:
        return _finding(None, found, CARDS)
    if hosts == 1 and ranks > 1 and speed < PCIE:
        return _finding(None, found, NVLINK)
    return _finding(True, found, "")


def _finding(ok: bool | None, found: str, remedy: str) -> Finding:
    return Finding(what="all-reduce", ok=ok, found=found, remedy=remedy)
