"""The pages by axe-core, from npm, on a phone and on two desktops, light and dark."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.reporting.compare_runs import compare_runs
from components.reporting.render.comparison_page import render_comparison
from components.reporting.step import report
from mantis.config.recipe import Recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.reporting import MakeStored, Stored, put_judged_answers
from tests.helpers.paths import root_of
from tests.helpers.screenshots import keep_picture
from tests.helpers.waiting import HANG_SECONDS

AXE = "axe-core@4.14.1"
WIDTHS = (390, 1280, 1440)
SCHEMES = ("light", "dark")
# Elements that reach beyond the window, or that scroll sideways themselves.
WIDE = """
() => [...document.body.querySelectorAll("*")].filter(element =>
  (element.getBoundingClientRect().right > window.innerWidth + 0.5 && !element.closest(".unseen, thead, svg"))
  || (element.scrollWidth > element.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowX))
).map(element => element.outerHTML.slice(0, 120))
"""
# Words that a narrow column breaks: text of letters alone on more lines than it has words.
BROKEN = """
() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest("svg, code, pre, style, script, .unseen, thead")) continue;
    for (const word of node.textContent.matchAll(/[A-Za-z]{3,14}/g)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].filter(box => box.width).map(box => Math.round(box.top)));
      if (lines.size > 1) found.push(node.textContent.trim().slice(0, 60));
    }
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on PATH: axe-core does not look at the pages")
    folder = tmp_path_factory.mktemp("axe")
    fetched = subprocess.run(
        [npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    if fetched.returncode != 0:
        pytest.skip(f"npm has no {AXE}: axe-core does not look at the pages")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, "gztar")
    return (folder / "package" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def pages(browser: Any) -> Iterator[Any]:
    """Pages of one context, which a test resizes."""
    context = browser.new_context()
    yield context
    context.close()


def examine(pages: Any, axe: str, path: Path) -> None:
    """Check the page with axe-core at each width and in each scheme, and how its text and tables fit."""
    page = pages.new_page()
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate(axe)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            keep_picture(page, f"{path.stem}-{width}-{scheme}", whole=True)
            found = page.evaluate("async () => (await axe.run()).violations")
            said = [(each["id"], [node["html"][:160] for node in each["nodes"][:3]]) for each in found]
            assert said == [], (width, scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            if width == min(WIDTHS):
                assert page.evaluate(WIDE) == []
                assert page.evaluate(BROKEN) == []
    page.close()


def test_the_report_and_its_answers(pages: Any, axe: str, stored: Stored) -> None:
    put_judged_answers(stored)
    report(stored.run, stored.evaluations)
    folder = root_of(stored.run.store) / "reports" / stored.run.id
    examine(pages, axe, folder / "report.html")
    examine(pages, axe, folder / "answers.html")


@pytest.mark.slow
def test_the_report_of_fifteen_benchmarks(pages: Any, axe: str, fifteen_benchmarks: Stored) -> None:
    report(fifteen_benchmarks.run, fifteen_benchmarks.evaluations)
    examine(pages, axe, root_of(fifteen_benchmarks.run.store) / "reports" / fifteen_benchmarks.run.id / "report.html")


def test_comparisons_of_two_and_of_five_runs(
    pages: Any, axe: str, make_stored: MakeStored, local_store: LocalStore, demo_recipe: Recipe, tmp_path: Path
) -> None:
    runs = []
    for number in range(5):
        training = demo_recipe.training.model_copy(update={"learning_rate": 1e-4 * 2**number})
        recipe = demo_recipe.model_copy(update={"training": training})
        runs.append(Run(id=f"a-run-with-a-long-name-{number}", store=local_store, recipe=recipe))
        put_judged_answers(make_stored(run=runs[-1]), wrong=number == 3)
    for count in (2, 5):
        path = tmp_path / f"comparison-{count}.html"
        path.write_text(render_comparison(compare_runs(runs[:count])))
        examine(pages, axe, path)


def test_answers_are_loaded_when_they_are_asked_for(pages: Any, stored: Stored) -> None:
    put_judged_answers(stored)
    report(stored.run, stored.evaluations)
    path = root_of(stored.run.store) / "reports" / stored.run.id / "answers.html"
    chunks = sorted(each.name for each in (path.parent / "answers").iterdir())
    assert chunks == ["demo-multi-00000.js", "demo-multi-00001.js", "demo-single-00000.js"]
    page, asked = pages.new_page(), []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.goto(path.as_uri(), wait_until="load")
    state, shown = page.locator("#state"), page.locator(".answer")
    assert state.inner_text() == "50 of 320 answers"
    assert "demo-single-00000.js" not in asked
    page.select_option("#skill", "temporal")
    page.select_option("#outcome", "not parsed")
    page.wait_for_function("document.getElementById('state').textContent === '2 of 2 answers'")
    assert set(page.locator(".outcome").all_inner_texts()) == {"✗ not parsed"}
    page.select_option("#benchmark", "demo-single")
    page.select_option("#skill", "")
    page.select_option("#outcome", "right")
    page.wait_for_function("document.getElementById('state').textContent === '40 of 40 answers'")
    assert shown.count() == 40
    assert "demo-single-00000.js" in asked
    page.close()
