"""The pages in a real browser: no console error, no request, every image there, readable on paper."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.data.showing.selection import Selection
from components.data.showing.source_view import show_source
from components.data.sources.find import open_source
from components.reporting.compare_runs import compare_runs
from components.reporting.render.comparison_page import render_comparison
from components.reporting.render.data_page import render_data
from components.reporting.step import report
from mantis.artifacts.manifest import commit_manifest, describe_files
from mantis.config.recipe import Recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.data import RawFolder
from tests.fixtures.reporting import MakeStored, Stored
from tests.helpers.paths import root_of


def opened(page: Any, path: Path) -> None:
    """Load the page whole. On a busy machine the network may be idle before the page is read to its end."""
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_load_state("networkidle")


def look(browser: Any, path: Path) -> Any:
    """The open page and what went wrong while it loaded."""
    said, asked = [], []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    opened(page, path)
    fetched = [url for url in asked if not url.startswith("data:") and url != path.as_uri()]
    return page, said, fetched


def sound(browser: Any, path: Path) -> int:
    """Check the page and give the number of its images."""
    page, said, fetched = look(browser, path)
    assert not said
    assert not fetched
    widths = page.evaluate("[...document.images].map(image => image.complete ? image.naturalWidth : 0)")
    assert all(widths)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
    assert len(page.pdf(format="A4")) > 20_000
    page.close()
    return len(widths)


def test_the_report_of_a_run(browser: Any, stored: Stored) -> None:
    report(stored.run, stored.evaluations)
    path = root_of(stored.run.store) / "reports" / stored.run.id / "report.html"
    assert sound(browser, path) == 4 * (2 + 4 + 4 + 4) + 2


def test_the_report_of_fifteen_benchmarks(browser: Any, fifteen_benchmarks: Stored) -> None:
    report(fifteen_benchmarks.run, fifteen_benchmarks.evaluations)
    path = root_of(fifteen_benchmarks.run.store) / "reports" / fifteen_benchmarks.run.id / "report.html"
    assert sound(browser, path) > 150
    page, _, _ = look(browser, path)
    ours = page.locator("table.ladder tr.ours td")
    assert ours.first.inner_text() == fifteen_benchmarks.run.id
    assert ours.count() == 16
    assert page.locator("text=Not parsed").count() >= 15


def test_a_comparison(
    browser: Any, make_stored: MakeStored, local_store: LocalStore, demo_recipe: Recipe, tmp_path: Path
) -> None:
    runs = []
    for name in ("first-run", "second-run"):
        runs.append(Run(id=name, store=local_store, recipe=demo_recipe))
        evaluation = make_stored(run=runs[-1]).artifacts["evaluate-demo-multi"]
        gallery = json.loads(local_store.get(f"{evaluation.key}/gallery.json"))
        lines = [
            {"id": each["id"], "skill": each["skill"], "unit": each["id"], "question": each["question"], "images": []}
            | {"response": each["response"], "correct": right, "score": float(right)}
            for each in gallery
            for right in [each["correct"] if name == "first-run" else not each["correct"]]
        ]
        prefix = evaluation.key
        local_store.put(f"{prefix}/responses/actual-00000.jsonl", "\n".join(map(json.dumps, lines)).encode())
        files = describe_files(local_store, prefix)
        commit_manifest(local_store, evaluation.model_copy(update={"files": files}))
    path = tmp_path / "comparison.html"
    path.write_text(render_comparison(compare_runs(runs)))
    assert sound(browser, path) == 4 * (2 + 4 + 4 + 4)


# The contrast of each text with what it stands on, by the browser's own computed colours. Small differences to 4.5 are
# rounding of the colours to 8 bits.
CONTRASTS = """
() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
  const paper = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["STYLE", "TITLE"].includes(element.tagName)) continue;
    const both = [luminance(parse(getComputedStyle(element).color)), luminance(paper(element))].sort((a, b) => b - a);
    const contrast = (both[0] + 0.05) / (both[1] + 0.05);
    if (contrast < 4.5) low.push([walker.currentNode.textContent.trim().slice(0, 40), contrast]);
  }
  return low;
}
"""
# Elements that reach beyond the window, or that scroll sideways themselves.
WIDE = """
() => [...document.body.querySelectorAll("*")].filter(element =>
  element.getBoundingClientRect().right > window.innerWidth + 0.5
  || (element.scrollWidth > element.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowX))
).map(element => element.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_data_is_readable_at_every_width(
    browser: Any, raw_folder: RawFolder, local_store: LocalStore, demo_recipe: Recipe, width: int, scheme: str
) -> None:
    long = "w" * 300
    raw_folder.image(f"{long[:120]}.jpg")
    raw_folder.image("a.jpg")
    rows = [
        raw_folder.row(f"{long}-1", "a.jpg", f"{long[:120]}.jpg"),
        raw_folder.row("hostile", "a.jpg", conversation=[
            {"role": "user", "content": f"<image><script>document.title = 'hacked'</script>\u202e{long}"},
            {"role": "assistant", "content": "<img src=x onerror=\"document.title = 'hacked'\">" + "\u05d0" * 200},
        ]),
        raw_folder.row("away", "away.jpg"),
        {"id": "raw", long: long},
    ]  # fmt: skip
    raw_folder.write(rows)
    source = open_source(str(raw_folder.folder), "raw")
    path = raw_folder.folder / "page.html"
    path.write_text(render_data(show_source(local_store, demo_recipe, source, Selection(rows=(0, 1, 2, 3)))))
    assert sound(browser, path) == 3
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened(page, path)
    assert page.evaluate(WIDE) == []
    assert page.evaluate(CONTRASTS) == []
    assert page.title().startswith("Rows of a source")
    assert page.locator("script").count() == 0
    page.close()
