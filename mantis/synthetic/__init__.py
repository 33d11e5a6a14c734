"""Generate tasks that need several images, in the raw form of every data source."""

from mantis.synthetic.dataset import (
    BENCHMARKS,
    REVISION,
    SKILLS,
    SUBSETS,
    write_demo_benchmark,
    write_demo_data,
    write_demo_subset,
)

__all__ = [
    "BENCHMARKS",
    "REVISION",
    "SKILLS",
    "SUBSETS",
    "write_demo_benchmark",
    "write_demo_data",
    "write_demo_subset",
]
