"""The network that NCCL chose, by its own log. With NCCL_DEBUG=INFO it names network and devices, and else nothing."""

import re

# The lines of NCCL 2.29, whose texts `strings libnccl.so.2` shows.
CHOSEN = re.compile(r"NCCL INFO Using network (\w+)")
DEVICES = {
    name: re.compile(rf"NCCL INFO NET/{name} ?: Using (\[0\].+?)(?:; OOB|\s*$)", re.MULTILINE)
    for name in ("IB", "Socket")
}


def network_of(text: str) -> str:
    """The network in a log of NCCL, such as `NET/IB [0]mlx5_0:1/RoCE`; empty if the log names none."""
    devices = {name: found[1].strip() for name, pattern in DEVICES.items() if (found := pattern.search(text))}
    chosen = CHOSEN.findall(text)
    name = chosen[-1] if chosen else next(iter(devices), "")
    return f"NET/{name} {devices.get(name, '')}".strip() if name else ""
