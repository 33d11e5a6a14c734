"""Generated tasks that need more than one image to solve, in the raw form that any source has.

The same arguments give the same bytes. No picture of a benchmark can be one of training: see pictures.py.
"""

from components.core.demo_tasks.writing import (
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
