"""The pages in a real browser: no console error, no request, every image there, readable on paper."""

import json
from pathlib import Path
from typing import Any

from components.reporting.compare_runs import compare_runs
from components.reporting.render.comparison_page import render_comparison
from components.reporting.step import report
from mantis.artifacts.manifest import commit_manifest, describe_files
from mantis.config.recipe import Recipe
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore
from tests.fixtures.reporting import MakeStored, Stored
from tests.helpers.paths import root_of


def look(browser: Any, path: Path) -> Any:
    """The open page and what went wrong while it loaded."""
    said, asked = [], []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")
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
