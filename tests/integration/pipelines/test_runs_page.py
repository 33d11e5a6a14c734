"""A sweep of twenty tiny runs, looked at in MLflow in a real browser as a person does who follows `mantis ui`.

With MANTIS_SCREENSHOTS=FOLDER it writes the pictures of docs/how-to/compare-runs.md.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from mantis.runs.arms import arms_of
from mantis.runs.records import runs
from mantis.store.local import LocalStore
from tests.helpers.loopback import free_port
from tests.helpers.screenshots import keep_picture
from tests.helpers.warm_processes import warm_starts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
TINY = (
    "--set=data.generated_conversations=240",
    "--set=data.skills=[single]",
    "--set=evaluation.benchmarks=[demo-single]",
    "--set=evaluation.samples_per_skill=20",
    "--set=evaluation.controls=[]",
    "--set=training.global_batch_size=8",
    "--set=training.gpus_per_node=1",
    "--set=training.checkpoint_every=1000",
    "--set=training.log_every=2",
)
OVER = (
    "--over=training.learning_rate=1e-5,1e-4,4e-4,2e-3,1e-2",
    "--over=training.seed=1,2",
    "--over=training.weight_decay=0.0,0.1",
)
RATES = ("1e-05", "0.0001", "0.0004", "0.002", "0.01")
SLOW = 120_000  # ms
WIDE = {"width": 1440, "height": 1000}


@pytest.fixture(scope="module")
def store(mantis_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """The store of the sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    command = [sys.executable, "-m", "pipelines.cli", "sweep", "demo", *TINY, *OVER]
    with warm_starts():
        subprocess.run(command, cwd=folder, env=mantis_environment | {"OMP_NUM_THREADS": "1"}, check=True, timeout=5000)
    return LocalStore(folder / ".mantis")


@pytest.fixture(scope="module")
def address(store: LocalStore, mantis_environment: dict[str, str]) -> Iterator[str]:
    """The address that `mantis ui` prints."""
    command = [sys.executable, "-m", "pipelines.cli", "ui", "--port", str(free_port()), "--store", store.url]
    server = subprocess.Popen(
        command, env=mantis_environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert server.stdout is not None
    try:
        yield next(line.strip() for line in server.stdout if line.startswith("http"))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="module")
def table(address: str, browser: Any) -> Iterator[Any]:
    """The page that the address opens."""
    page = browser.new_page(viewport=WIDE)
    page.set_default_timeout(SLOW)
    page.goto(address)
    yield page
    page.close()


def keep(page: Any, name: str) -> None:
    """A picture for docs/how-to/compare-runs.md, where one is wanted."""
    keep_picture(page, name, after=9000)


def test_names_changes_and_scores_are_seen_at_a_glance(table: Any, store: LocalStore) -> None:
    table.get_by_text("demo lr=").first.wait_for()
    close = table.get_by_role("button", name="Close")
    if close.count():  # MLflow's assistant
        close.last.click()
    (parent,) = [run for run in runs(store) if arms_of(store, run)]
    assert len(arms_of(store, parent)) == 20
    shown = table.locator("body").inner_text()
    for rate in RATES:
        assert f"lr={rate}" in shown
    for column in ("score.mean", "train/loss", "changed"):
        assert column in shown
    assert "training.learning_rate = 0.01" in shown
    keep(table, "runs-table")


def test_the_charts_begin_with_the_loss_of_all_runs_and_plot_what_was_varied(table: Any, address: str) -> None:
    table.goto("about:blank")
    table.goto(f"{address}&compareRunsMode=CHART")
    headings = ("Curves", "Parameters and results", "Model metrics")
    for name in ("train/loss", "Parallel Coordinates"):
        table.get_by_text(name).first.wait_for()
    shown = table.locator("body").inner_text()
    assert [shown.index(heading) for heading in headings] == sorted(shown.index(heading) for heading in headings)
    assert shown.index("train/loss") < shown.index("Parameters and results")
    keep(table, "runs-curves")
    axes = table.get_by_text("Parameters and results").first
    axes.evaluate("element => element.scrollIntoView({block: 'start'})")
    lines = table.locator(".js-plotly-plot, svg").filter(has_text="score.mea")
    assert lines.count(), "the axis of the score"
    keep(table, "runs-axes")
