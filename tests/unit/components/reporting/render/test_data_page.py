"""The page of `mantis data show`: hostile text stays text, nothing comes from elsewhere, colours can be read."""

import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from components.reporting.render.data_page import render_data
from mantis.showing.shown_data import (
    PackedSample,
    PlotBar,
    ReasonCount,
    ReasonRow,
    ShownData,
    ShownFinding,
    ShownImage,
    ShownMicroStep,
    ShownPlot,
    ShownRow,
    ShownStep,
    ShownTokens,
    ShownTurn,
    TokenPiece,
)

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=y>&amp;\x00\x1b[31m\u202eedoc {{ 7 * 7 }} </style>"
VISIBLE = (
    "<script>alert('x')</script>\"><img src=x onerror=y>&amp;[U+0000][U+001B][31m[U+202E]edoc {{ 7 * 7 }} </style>"
)
STRUCTURE = {"html", "head", "meta", "title", "link", "style", "body", "main", "header", "footer", "section", "article"}
CONTENT = {"div", "h1", "h2", "h3", "dl", "dt", "dd", "ul", "li", "p", "b", "span", "bdi", "code", "pre", "br"}
PICTURES = {"figure", "figcaption", "img", "svg", "rect"}


def hostile_data() -> ShownData:
    """Every field that holds text of the data holds HOSTILE."""
    finding = ShownFinding(
        action="dropped", reason="key-unknown", value=HOSTILE, threshold=HOSTILE, meaning="m", remedy="r"
    )
    tokens = ShownTokens(
        count=3,
        targets=1,
        whole=5,
        pieces=(
            TokenPiece(ids=(1,), text=HOSTILE, learned=False),
            TokenPiece(ids=(2,), text=HOSTILE, learned=True),
            TokenPiece(ids=(3,), text="image 1: 1 token", image=1, learned=False),
        ),
    )
    images = (ShownImage(path=HOSTILE, problem=HOSTILE), ShownImage(path=HOSTILE, width=1, height=1, tokens=1))
    turns = (
        ShownTurn(role="user", content=HOSTILE, learned=False),
        ShownTurn(role="assistant", content=HOSTILE, learned=True),
    )
    kept = ShownRow(
        subset="s", position=7, id=HOSTILE, system=HOSTILE, turns=turns, images=images, tokens=tokens, weight=2
    )
    dropped = ShownRow(subset="s", row=0, id=HOSTILE, dropped=True, findings=(finding,), raw=HOSTILE, images_left_out=1)
    sample = PackedSample(position=7, subset="s", id=HOSTILE, tokens=3, patches=4, images=1)
    step = ShownStep(
        step=1, steps=2, samples=1, ranks=2, token_budget=2, patch_budget=8, idle=0.5,
        micro_steps=(
            ShownMicroStep(rank=0, number=1, samples=(sample,)), ShownMicroStep(rank=1, number=1, samples=()),
        ),
    )  # fmt: skip
    reason = ReasonCount(
        subset="s", action="dropped", reason="key-unknown", rows=1, meaning="m", remedy="r",
        first=(ReasonRow(row=0, id=HOSTILE, value=HOSTILE),),
    )  # fmt: skip
    return ShownData(
        kind="step",
        name=HOSTILE,
        facts={"form": HOSTILE},
        notes=(HOSTILE,),
        step=step,
        rows=(kept, dropped),
        reasons=(reason,),
        plots=(ShownPlot(title="Dropped rows by reason", unit="rows", bars=(PlotBar(label=HOSTILE, count=1),)),),
    )


def render_count() -> int:
    """How often the page shows HOSTILE: once per field that holds it, but the name in the title, too."""
    return str(hostile_data().model_dump()).count(repr(HOSTILE)) + 1


class Page(HTMLParser):
    """The tags, addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_stays_text() -> None:
    html = render_data(hostile_data())
    page = Page(html)
    assert page.tags <= STRUCTURE | CONTENT | PICTURES
    assert page.handlers == []
    assert [address for address in page.addresses if address and not address.startswith("data:")] == []
    assert page.text.count(VISIBLE) == render_count()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", html)


def test_a_page_allows_no_script_and_asks_for_nothing() -> None:
    html = render_data(hostile_data())
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_an_empty_page_says_so() -> None:
    data = ShownData(kind="source", name="x", facts={}, rows=(), reasons=(), plots=())
    text = Page(render_data(data)).text
    assert "No row is shown." in text
    assert "No row was dropped, repaired or noted." in text


def style() -> str:
    folder = resources.files("components.reporting.render") / "templates"
    return (folder / "style.css").read_text() + (folder / "data.css").read_text()


def palette(*, dark: bool) -> dict[str, str]:
    """The colours of a theme by name, where later rules win."""
    found: dict[str, str] = {}
    for scheme, body in re.findall(r"(prefers-color-scheme: dark\) \{\s*)?:root \{(.*?)\}", style(), re.DOTALL):
        if not scheme or dark:
            found |= dict(re.findall(r"(--[\w-]+):\s*([^;]+);", body))
    for name, value in found.items():
        if value.startswith("var("):
            found[name] = found[value.removeprefix("var(").removesuffix(")")]
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("ink", "papers"),
    [
        ("--ink", ("--paper", "--wash", "--text-odd")),
        ("--soft", ("--paper", "--wash")),
        ("--faint", ("--paper", "--wash")),
        ("--warm", ("--paper", "--wash")),
        ("--right", ("--paper", "--wash")),
        ("--learned", ("--learned-wash", "--learned-odd")),
        ("--image", ("--image-wash",)),
    ],
)
def test_every_text_has_enough_contrast(ink: str, papers: tuple[str, ...], dark: bool) -> None:
    colours = palette(dark=dark)
    for paper in papers:
        assert contrast(colours[ink], colours[paper]) >= 4.5, f"{ink} on {paper}"
