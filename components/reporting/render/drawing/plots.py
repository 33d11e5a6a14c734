"""Draw the report's plots as inline SVG. Colours come from the page's style sheet, so that they follow its theme.

Strips take the width of their table cell. Positions along a strip are percentages of that width.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from markupsafe import Markup

from components.reporting.collect.report_schema import Curve, StepTime
from components.reporting.render import formatting
from components.reporting.render.drawing.plot_scales import Scale, duration_ticks, linear, linear_ticks, logarithmic
from components.reporting.render.drawing.svg import at, element, titled
from mantis.artifacts.scores import Score
from mantis.runs.records import State
from mantis.statistics import Paired

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
MIDDLE, UPPER, LOWER = "50%", "36%", "74%"  # vertical positions in a strip; controls lie below the accuracy
PANEL_WIDTH, PANEL_HEIGHT = 500.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 62.0, 24.0, 22.0  # margins of a panel, pixels
HOVERED = 60  # points of a curve that show their values under the pointer
AVERAGED = 80  # points of a curve among others
COLOURS, DASHES = 6, 4  # of curves among others; the style sheet has the same numbers
POINTS = 500  # maximum per curve; more are indistinguishable at this width
LOG_RATIO = 20.0  # highest value over lowest; a curve above this ratio gets a logarithmic scale
WHISKER = "M0 -5V5"
SHAPES = {"blind": "M-4 -4H4V4H-4Z", "shuffled": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z"}


def score_strip(score: Score) -> Markup:
    """Draw accuracy with its interval, the chance level, and the controls, from 0 to 100 %."""
    what = (
        f"{score.title}: {formatting.percent(score.accuracy)} % "
        f"({formatting.percent(score.low)} to {formatting.percent(score.high)}), "
        f"chance {formatting.percent(score.chance)} %"
    )
    state = "above" if score.above_chance else "level"
    gain = [_span(score.chance, score.accuracy, "gain", UPPER)] if score.above_chance else []
    controls = [
        titled(f"{name}: {formatting.percent(value)} %", _mark(value, "control", SHAPES[name], LOWER))
        for name, value in score.controls().items()
    ]
    return _strip(
        *(_line(share, "grid") for share in GRID),
        *gain,
        _line(score.chance, "chance"),
        *controls,
        titled(
            what,
            _span(score.low, score.high, "interval", UPPER),
            _mark(score.low, "whisker", WHISKER, UPPER),
            _mark(score.high, "whisker", WHISKER, UPPER),
            element("circle", cx=at(score.accuracy), cy=UPPER, r=4.5, class_="dot"),
        ),
        class_=f"strip {state}",
        label=what,
    )


def difference_strip(paired: Paired, span: float) -> Markup:
    """Draw a difference with its interval, from -span to +span (shares); a line marks zero."""

    def place(difference: float) -> float:
        return 0.5 + difference / (2 * span)

    low, middle, high = (place(value) for value in (paired.low, paired.difference, paired.high))
    interval = f"{formatting.points(100 * paired.low)} to {formatting.points(100 * paired.high)}"
    what = f"{formatting.points(100 * paired.difference)} ({interval})"
    state = "level" if not paired.significant else "above" if paired.difference > 0 else "below"
    return _strip(
        *(_line(share, "grid") for share in (0.0, 1.0)),
        _line(0.5, "chance"),
        titled(
            what,
            _span(low, high, "interval"),
            _mark(min(1.0, max(0.0, low)), "whisker", WHISKER),
            _mark(min(1.0, max(0.0, high)), "whisker", WHISKER),
            element("circle", cx=at(middle), cy=MIDDLE, r=4.5, class_="dot"),
        ),
        class_=f"strip {state}",
        label=what,
    )


def difference_axis(span: float) -> Markup:
    """Draw the scale above the differences, in percentage points."""
    labels = [
        element("text", formatting.points(100 * value), x=at(share), y=12, class_="tick middle")
        for value, share in ((-span, 0.0), (span, 1.0))
    ]
    none = element("text", "0", x="50%", y=12, class_="tick middle")
    return element("svg", *labels, none, class_="axis", aria_hidden="true")


def score_axis() -> Markup:
    """Draw the scale above the strips."""
    labels = [element("text", f"{share:.0%}", x=at(share), y=12, class_="tick middle") for share in GRID]
    return element("svg", *labels, class_="axis", aria_hidden="true")


def key_mark(name: str) -> Markup:
    """Draw the mark `name` (accuracy, chance, blind, shuffled) for the legend."""
    dot = element("circle", cx=MIDDLE, cy=MIDDLE, r=4.5, class_="dot")
    inner = {
        "accuracy": element("g", _span(0.1, 0.9, "interval"), dot),
        "chance": _line(0.5, "chance"),
        **{control: _mark(0.5, "control", shape) for control, shape in SHAPES.items()},
    }[name]
    return element(
        "svg", inner, class_="key strip above", width=34 if name == "accuracy" else 16, height=16, aria_hidden="true"
    )


def curve_panel(curve: Curve) -> Markup:
    """Draw one curve over the steps, with its last value at its end and the value of the step under the pointer."""
    points = thinned(curve.points, POINTS)
    steps, values = [point[0] for point in points], [point[1] for point in points]
    fit = logarithmic if is_logarithmic(curve) else linear
    x, y = _step_scale(steps), fit(values, start=PANEL_HEIGHT - BOTTOM, end=TOP)
    last_x, last_y = x(steps[-1]), y(values[-1])
    first, last = formatting.short(values[0]), formatting.short(values[-1])
    return _panel(
        f"{curve.title}: {first} at first, {last} at last",
        *_frame(x, y, curve.unit),
        element("path", d=_path(points, x, y), class_="curve"),
        element("circle", cx=last_x, cy=last_y, r=3.5, class_="dot"),
        element("text", last, x=last_x + 8, y=last_y + 4, class_="value"),
        *_values_under_pointer(thinned(points, HOVERED), x, y),
    )


def overlaid(title: str, curves: Sequence[tuple[str, Curve]]) -> Markup:
    """Draw the same curve of several runs over each other. Each has the colour and the dashes of `curve_key`.

    Args:
        title: what the curves show.
        curves: name of the run and curve, in the order of the keys; a curve without points is not drawn.
    """
    drawn = [(number, name, averaged(curve.points, AVERAGED)) for number, (name, curve) in enumerate(curves)]
    drawn = [each for each in drawn if each[2]]
    values = [value for _, _, points in drawn for _, value in points]
    steps = [step for _, _, points in drawn for step, _ in points]
    unit = curves[0][1].unit
    whole = Curve(name=curves[0][1].name, title=title, unit=unit, points=tuple(zip(steps, values, strict=True)))
    fit = logarithmic if is_logarithmic(whole) else linear
    x, y = _step_scale([min(steps), max(steps)]), fit(values, start=PANEL_HEIGHT - BOTTOM, end=TOP)
    lines = [
        titled(
            f"{name}: {formatting.short(points[-1][1])} at step {formatting.count(points[-1][0])}",
            element("path", d=_path(points, x, y), class_="near"),
            element("path", d=_path(points, x, y), class_=_curve_class(number)),
            class_="one",
        )
        for number, name, points in drawn
    ]
    return _panel(f"{title} of {len(drawn)} runs", *_frame(x, y, unit), *lines)


def curve_key(number: int) -> Markup:
    """Draw the line of run `number` for a legend."""
    line = element("path", d="M1 8H33", class_=_curve_class(number))
    return element("svg", line, class_="key", width=34, height=16, aria_hidden="true")


def averaged(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Average stretches of equal length: at most `most` points are left, so curves over each other stay readable."""
    stretch = -(-len(points) // most)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)] if points else []
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _curve_class(number: int) -> str:
    return f"curve line-{number % COLOURS} dash-{number // COLOURS % DASHES}"


def _step_scale(steps: Sequence[float]) -> Scale:
    return Scale(low=min(0.0, steps[0]), high=max(steps[-1], 1.0), start=LEFT, end=PANEL_WIDTH - RIGHT)


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)


def _frame(x: Scale, y: Scale, unit: str) -> list[Markup]:
    """Grid lines, ticks, and the names of both axes."""
    ticks = [tick for tick in y.ticks() if y.low <= tick <= y.high]
    return [
        *(element("line", x1=LEFT, x2=PANEL_WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid") for tick in ticks),
        *(element("text", formatting.short(tick), x=LEFT - 8, y=y(tick) + 4, class_="tick end") for tick in ticks),
        *_step_labels(x),
        element("text", unit, x=2, y=10, class_="tick"),
        element("text", "step", x=PANEL_WIDTH - RIGHT + 8, y=PANEL_HEIGHT - 4, class_="tick"),
    ]


def _values_under_pointer(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> list[Markup]:
    """An invisible stripe around each point that shows the point and its value while the pointer is on it."""
    places = [x(step) for step, _ in points]
    edges = [LEFT, *((one + other) / 2 for one, other in pairwise(places)), PANEL_WIDTH - RIGHT]
    stripes = []
    for (step, value), place, (start, end) in zip(points, places, pairwise(edges), strict=True):
        middle = "start" if place < PANEL_WIDTH / 4 else "end" if place > PANEL_WIDTH * 3 / 4 else "middle"
        said = f"step {formatting.count(step)}: {formatting.short(value)}"
        tip = element(
            "g",
            element("line", x1=place, x2=place, y1=TOP, y2=PANEL_HEIGHT - BOTTOM, class_="pointer"),
            element("circle", cx=place, cy=y(value), r=3.5, class_="dot"),
            element("text", said, x=place, y=TOP - 4, class_=f"value {middle}"),
            class_="tip",
        )
        room = element("rect", x=start, y=0, width=max(0.0, end - start), height=PANEL_HEIGHT, class_="near")
        stripes.append(element("g", room, tip, class_="at"))
    return stripes


def _panel(label: str, *children: str) -> Markup:
    box = f"0 0 {PANEL_WIDTH:.0f} {PANEL_HEIGHT:.0f}"
    return element("svg", *children, viewBox=box, class_="panel", role="img", aria_label=label)


def is_logarithmic(curve: Curve) -> bool:
    """Whether the curve spans a ratio that needs a logarithmic scale."""
    values = [value for _, value in curve.points]
    return bool(values) and curve.name == "loss" and min(values) > 0 and max(values) / min(values) > LOG_RATIO


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Reduce to about `most` points: the lowest and highest of each stretch, so that every spike stays visible."""
    if len(points) <= most:
        return list(points)
    stretch = -(-2 * len(points) // most)
    kept = {points[0], points[-1]}
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept |= {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
    return sorted(kept)


def time_strip(step: StepTime, began: datetime, total: float) -> Markup:
    """Draw the time of a step within the run's `total` seconds since `began`; a reused step is a single mark."""
    start = (step.started - began).total_seconds() / total
    end = (step.ended - began).total_seconds() / total
    what = f"{step.step}: {formatting.duration(step.seconds)}, {formatting.outcome(step)}"
    if step.state is State.REUSED:
        drawn = _mark(start, "reused", "M0 -4.5A4.5 4.5 0 1 1 0 4.5A4.5 4.5 0 1 1 0 -4.5Z")
    else:
        width = at(max(end - start, 0.003))
        drawn = element("rect", x=at(start), y="25%", width=width, height="50%", rx=2, class_=f"bar {step.state}")
    grid = [_line(tick / total, "grid") for tick in duration_ticks(total)]
    return _strip(*grid, titled(what, drawn), class_="strip", label=what)


def time_axis(total: float) -> Markup:
    """Draw the scale above the time strips, in round durations."""
    labels = [
        element("text", formatting.round_duration(tick), x=at(tick / total), y=12, class_="tick middle")
        for tick in duration_ticks(total)
    ]
    return element("svg", *labels, class_="axis", aria_hidden="true")


def count_bar(count: int, full: int) -> Markup:
    """Draw a bar for `count` in the room of `full`. A count beyond it has another colour."""
    room = element("rect", width="100%", height="100%", rx=2, class_="room")
    bar = element("rect", width=at(count / full), height="100%", rx=2, class_="bar over" if count > full else "bar")
    return element("svg", room, bar, class_="countbar", role="img", aria_label=f"{count:,} of {full:,}")


def share_bar(seconds: Mapping[str, float]) -> Markup:
    """Draw one bar of all causes in the given order; the first one, productive time, is emphasized."""
    total = sum(seconds.values())
    drawn, start = [], 0.0
    for number, (cause, value) in enumerate(seconds.items()):
        share = value / total
        bar = element("rect", x=at(start), y=0, width=at(share), height="100%", class_=f"share share-{min(number, 4)}")
        drawn.append(titled(f"{formatting.CAUSES.get(cause, cause)}: {formatting.duration(value)}, {share:.1%}", bar))
        start += share
    said = ", ".join(f"{formatting.CAUSES.get(cause, cause)} {value / total:.0%}" for cause, value in seconds.items())
    return element("svg", *drawn, class_="sharebar", role="img", aria_label=said, preserveAspectRatio="none")


def _step_labels(x: Scale) -> list[Markup]:
    return [
        element("text", formatting.count(tick), x=x(tick), y=PANEL_HEIGHT - 4, class_="tick middle")
        for tick in linear_ticks(x.low, x.high)
        if tick == int(tick)
    ]


def _strip(*children: str, class_: str, label: str) -> Markup:
    return element("svg", *children, class_=class_, role="img", aria_label=label)


def _line(share: float, class_: str) -> Markup:
    """Draw a vertical line at `share` over the whole height."""
    return element("line", x1=at(share), x2=at(share), y1="0", y2="100%", class_=class_)


def _span(low: float, high: float, class_: str, height: str = MIDDLE) -> Markup:
    return element("line", x1=at(low), x2=at(high), y1=height, y2=height, class_=class_)


def _mark(share: float, class_: str, path: str, height: str = MIDDLE) -> Markup:
    """Draw a shape around the point at `share`; the nested drawing allows pixels around a percentage."""
    return element("svg", element("path", d=path, class_=class_), x=at(share), y=height, overflow="visible")
