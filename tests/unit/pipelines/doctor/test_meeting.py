"""What the doctor says about an all-reduce, for results as clusters give them."""

from typing import Any

import pytest

from components.training.launch.nccl_log import network_of
from pipelines.doctor import meeting
from pipelines.doctor.meeting import judge_meeting

IB = "NET/IB [0]mlx5_0:1/IB [1]mlx5_1:1/IB"
GOOD: dict[str, Any] = {
    "ranks": 16,
    "hosts": ["a", "b"],
    "device": "cuda",
    "seconds": 0.01,
    "gb_per_second": 150.0,
    "memlock": -1,
    "network": IB,
    "store": "",
}


@pytest.mark.parametrize(
    ("other", "ok", "remedy"),
    [
        ({}, True, ""),
        ({"gb_per_second": 1.1, "network": "NET/Socket [0]eth0:10.0.0.1<0>"}, False, meeting.RDMA),
        ({"gb_per_second": 1.1, "network": ""}, False, meeting.RDMA),  # an image that does not say the network
        ({"gb_per_second": 4.9}, False, meeting.RDMA),
        ({"gb_per_second": 30.0, "network": "NET/Socket [0]eth0:10.0.0.1<0>"}, False, meeting.RDMA),
        ({"gb_per_second": 12.0}, None, meeting.CARDS),
        ({"memlock": 65536}, None, meeting.MEMLOCK),
        ({"hosts": ["a"], "gb_per_second": 18.0, "network": ""}, None, meeting.NVLINK),
        ({"hosts": ["a"], "gb_per_second": 230.0, "network": ""}, True, ""),
        ({"device": "cpu", "gb_per_second": 0.9, "network": "", "memlock": 65536}, True, ""),
        ({"ranks": 2}, False, meeting.IMAGE),
        ({"store": "AccessDenied"}, False, meeting.STORE),
    ],
)
def test_an_all_reduce_below_a_limit_has_a_remedy(other: dict[str, Any], ok: bool | None, remedy: str) -> None:
    found = judge_meeting(GOOD | other, ranks=16)
    assert (found.ok, found.remedy) == (ok, remedy), found
    assert not remedy or found.found


def test_the_finding_names_speed_and_network() -> None:
    assert judge_meeting(GOOD, ranks=16).found == f"16 ranks (cuda), 150.00 GB/s over {IB}, may lock any amount"


HEAD = "a-0:70:95 [0] NCCL INFO "
OVER_IB = (
    f"{HEAD}NET/Plugin: Could not find: libnccl-net.so.\n"
    f"{HEAD}NET/IB : Using [0]mlx5_0:1/RoCE [1]mlx5_1:1/RoCE [RO]; OOB eth0:10.244.0.7<0>\n"
    f"{HEAD}Using network IB\n"
)
OVER_TCP = (
    f"{HEAD}Failed to open libibverbs.so[.1]\n"
    f"{HEAD}NET/IB : No device found.\n"
    f"{HEAD}NET/Socket : Using [0]eth0:10.244.0.7<0>\n"
    f"{HEAD}Using network Socket\n"
)


@pytest.mark.parametrize(
    ("log", "network"),
    [
        (OVER_IB, "NET/IB [0]mlx5_0:1/RoCE [1]mlx5_1:1/RoCE [RO]"),
        (OVER_TCP, "NET/Socket [0]eth0:10.244.0.7<0>"),
        (f"{HEAD}NET/IB : Using [0]mlx5_0:1/IB ; OOB eth0:10.0.0.1<0>\n", "NET/IB [0]mlx5_0:1/IB"),
        (f"{HEAD}NET/Socket: Using 2 threads and 8 sockets per thread\n{HEAD}Using network Socket\n", "NET/Socket"),
        ("gloo says nothing\n", ""),
    ],
)
def test_nccl_says_which_network_it_uses(log: str, network: str) -> None:
    assert network_of(log) == network


def test_the_limits_are_those_of_the_docs() -> None:
    from tests.helpers.paths import ROOT

    text = (ROOT / "docs" / "how-to" / "operate.md").read_text()
    for limit in (meeting.TCP, meeting.ONE_CARD, meeting.PCIE):
        assert f"| {limit:.0f} GB/s |" in text
