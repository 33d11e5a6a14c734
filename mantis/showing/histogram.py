"""Count values in bars for plots."""

from collections.abc import Mapping, Sequence

import numpy as np

from mantis.showing.shown_data import PlotBar, ShownPlot

MOST_BARS = 16
ROUND = (1, 2, 5)


def histogram(title: str, unit: str, values: Sequence[int]) -> ShownPlot:
    """Count whole numbers in at most MOST_BARS bars of one round width. No value gives no bar."""
    if not len(values):
        return ShownPlot(title=title, unit=unit, bars=())
    low, high = int(min(values)), int(max(values))
    width = _width(low, high)
    first = low // width
    counts = np.bincount(np.asarray(values, dtype=np.int64) // width - first)
    bars = [_bar((first + place) * width, width, int(count)) for place, count in enumerate(counts)]
    return ShownPlot(title=title, unit=unit, bars=tuple(bars))


def counts_plot(title: str, unit: str, counts: Mapping[str, int]) -> ShownPlot:
    """One bar for each name, in the given order."""
    return ShownPlot(
        title=title, unit=unit, bars=tuple(PlotBar(label=name, count=count) for name, count in counts.items())
    )


def _width(low: int, high: int) -> int:
    power = 1
    while True:
        for factor in ROUND:
            width = factor * power
            if high // width - low // width < MOST_BARS:
                return width
        power *= 10


def _bar(start: int, width: int, count: int) -> PlotBar:
    label = f"{start:,}" if width == 1 else f"{start:,}–{start + width - 1:,}"
    return PlotBar(label=label, count=count)
