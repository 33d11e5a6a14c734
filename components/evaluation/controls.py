"""Chooses the images that a model sees: the sample's own, or those of a control without their information."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from components.evaluation.readers.benchmark_reader import BenchmarkSample
from mantis.generation.sample_images import Picture, grey_picture

Condition = Literal["actual", "blind", "shuffled"]


def shown(samples: Sequence[BenchmarkSample], condition: Condition, *, seed: int) -> dict[int, tuple[Picture, ...]]:
    """The images to ask each sample with, by its place in `samples`.

    - `actual`: the sample's own images.
    - `blind`: grey images of the same sizes.
    - `shuffled`: the images of another sample with the same skill and the same number of images.

    A control leaves out samples without images. `shuffled` also leaves out samples without a partner.
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
    """Give each sample another one of its group. The partners form a random cycle, so none keeps its own images."""
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
