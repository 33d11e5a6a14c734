import math

import pytest

from components.reporting.collect.report_schema import Answer, Curve
from components.reporting.render import formatting
from components.reporting.render.drawing.plot_scales import Scale, duration_ticks, linear, linear_ticks, logarithmic
from components.reporting.render.drawing.plots import POINTS, curve_panel, is_logarithmic, thinned
from components.reporting.render.drawing.svg import element


def test_thinning_keeps_spikes_and_ends() -> None:
    points = [(float(step), math.sin(step / 500)) for step in range(20_000)]
    points[12_345] = (12_345.0, 9.0)
    points[4_321] = (4_321.0, -9.0)
    kept = thinned(points, POINTS)
    assert len(kept) <= POINTS + 2
    assert {points[0], points[-1], (12_345.0, 9.0), (4_321.0, -9.0)} <= set(kept)
    assert kept == sorted(kept)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2500), (0, 0.0012), (0, 7.3), (-2, 5)])
def test_ticks_are_few_and_round(low: int, high: float) -> None:
    ticks = linear_ticks(low, high)
    assert 3 <= len(ticks) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


@pytest.mark.parametrize(
    ("total", "last"), [(0.2, 0.2), (7.5, 6), (45, 40), (430, 360), (5_000, 4_500), (90_000, 86_400), (9e6, 7_776_000)]
)
def test_time_has_ticks_that_people_count_in(total: float, last: float) -> None:
    ticks = duration_ticks(total)
    assert len(ticks) <= 7
    assert ticks[-1] == pytest.approx(last)


def test_scales_map_their_ends() -> None:
    assert linear([0.0, 7.3], start=100, end=0).high == 8
    scale = logarithmic([0.01, 10], start=100, end=0)
    assert scale(0.008) == pytest.approx(100)
    assert scale(12.5) == pytest.approx(0)
    assert Scale(low=0, high=10, start=0, end=100)(25) == 100


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0], [1e-9, 3.0], [100.0, 0.001]])
def test_any_curve_can_be_drawn(values: list[float]) -> None:
    curve = Curve(name="loss", title="Loss", points=tuple((float(step), value) for step, value in enumerate(values, 1)))
    drawn = curve_panel(curve)
    assert "nan" not in drawn
    assert is_logarithmic(curve) == (min(values) > 0 and max(values) / min(values) > 20)


def test_text_in_drawings_is_escaped() -> None:
    assert element("text", "<b>", class_='"x"') == '<text class="&#34;x&#34;">&lt;b&gt;</text>'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (1e-5, "1e-5"),
        (1.2e-3, "1.2e-3"),
        (0.0435, "0.0435"),
        (164.3, "164"),
        (999.7, "1,000"),
        (1_234, "1,234"),
        (40_100, "40.1 k"),
        (999_999, "1 M"),
        (1_043_584, "1.04 M"),
        (2.5e9, "2.5 G"),
    ],
)
def test_short_numbers(value: int | float | None, shown: str) -> None:
    assert formatting.short(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7_500, "2 h 05 min"), (3_600, "1 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert formatting.duration(seconds) == shown


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("<image><image>Same?", "Same?"),
        ("Is <image> like <image>?", "Is [1] like [2]?"),
        ("<image> Is it like <image>?", "Is it like [2]?"),
        ("<image><image>", ""),
        ("Plain?", "Plain?"),
    ],
)
def test_image_marks_are_numbered(question: str, shown: str) -> None:
    answer = Answer(benchmark="b", skill="s", id="1", question=question, answer="a", response="", correct=False)
    assert formatting.question(answer) == shown
    assert formatting.response(answer) == "(empty)"
