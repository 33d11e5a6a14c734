"""Render what `mantis data show` found as one self-contained HTML page."""

from components.reporting.render.page import environment
from mantis.showing.shown_data import ShownData, ShownPlot, fact_text
from mantis.showing.visible_text import visible

KINDS = {"source": "Rows of a source", "dataset": "Rows of a prepared set", "step": "A training step"}


def render_data(data: ShownData) -> str:
    """Render the page with style, plots and images inline, without scripts or external resources.

    Text of the data is escaped, and its hidden characters are written as codes.
    """
    templates = environment()
    templates.filters |= {"visible": visible, "ends": ends, "fact": fact_text}
    return templates.get_template("data.html").render(data=data, title=KINDS[data.kind], highest=highest)


def ends(text: str) -> str:
    """Mark line ends and tabs, which a token may consist of."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t")


def highest(plot: ShownPlot) -> int:
    """The count of the longest bar."""
    return max(bar.count for bar in plot.bars)
