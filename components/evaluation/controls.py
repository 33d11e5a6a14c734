"""What a model is shown: the sample as it is, or a control that takes the pictures' information away."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from components.evaluation.benchmarks.sample_images import Picture, grey_picture
from components.evaluation.readers.benchmark_reader import BenchmarkSample

Condition = Literal["actual", "blind", "shuffled"]


def shown(samples: Sequence[BenchmarkSample], condition: Condition, *, seed: int) -> dict[int, tuple[Picture, ...]]:
    """The pictures that each sample, by its place in `samples`, is asked with.

    `blind`: grey ones of the same size. `shuffled`: those of another sample of the same skill with as many pictures;
    a sample that has no such other, or no pictures, is left out, since it would not be a control.
    """
    if condition == "actual":
        return {place: sample.pictures for place, sample in enumerate(samples)}
    if condition == "blind":
        return {
            place: tuple(grey_picture(picture.size) for picture in sample.pictures)
            for place, sample in enumerate(samples)
            if sample.pictures
        }
    return {place: samples[other].pictures for place, other in sorted(_partners(samples, seed).items())}


def _partners(samples: Sequence[BenchmarkSample], seed: int) -> dict[int, int]:
    """For each sample another one: within each group a random cycle, so that nobody keeps what it has."""
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.pictures:
            groups[sample.skill, len(sample.pictures)].append(place)
    rng = np.random.default_rng(seed)
    partners: dict[int, int] = {}
    for _, places in sorted(groups.items()):
        if len(places) > 1:
            cycle = rng.permutation(places).tolist()
            partners |= dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    return partners
