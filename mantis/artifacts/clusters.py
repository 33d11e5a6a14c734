"""Finds samples that share an image or a clip. Answers to them are alike, so statistics draw them together."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

COMMON = 0.5  # an image in more than this share of the samples is the same for all, e.g. a blank one, and links none


def links_of(images: Sequence[Mapping[str, str]], cluster: str) -> frozenset[str]:
    """What a sample may share with others: its clip `cluster`, and its images.

    An image is identified by its content, or by its path if it was not read.
    """
    clip = {f"clip {cluster}"} if cluster else set()
    return frozenset(clip | {f"image {image.get('sha256') or image.get('path')}" for image in images})


def clusters_of(samples: Iterable[tuple[str, Collection[str]]]) -> dict[str, str]:
    """Name the cluster of each unit, from the unit and the links of every sample.

    Units with a common link are in one cluster, also by way of other units.
    """
    given = list(samples)
    times = Counter(link for _, links in given for link in links)
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    for unit, links in given:
        own = f"unit {unit}"
        for link in links:
            if times[link] <= max(1, COMMON * len(given)):
                parents[root(link)] = root(own)
    return {unit: root(f"unit {unit}") for unit, _ in given}
