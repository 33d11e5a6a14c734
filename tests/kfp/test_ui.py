"""What a person does in KFP's own pages, in a real browser: upload, fill in, start, read."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from mantis.artifacts.checkpoint import committed
from pipelines.execution.form.form_fields import filled_in
from pipelines.execution.platform import Platform
from pipelines.kubeflow.compile import compile_all
from pipelines.kubeflow.submit import ENDED, described
from tests.helpers.kubectl import Kube
from tests.helpers.screenshots import keep_picture
from tests.kfp.conftest import Kfp

pytestmark = pytest.mark.timeout(1800)
STEPS = ("preflight", "prepare-mixture", "train", "convert", "each-benchmark", "report")
NAMES = (
    "batch_size",
    "benchmarks",
    "epochs",
    "learning_rate",
    "mantis_run",
    "nodes",
    "overrides",
    "recipe",
    "store_url",
)
FORM = [f"{name} - string" for name in NAMES]
SLOW = 60_000  # ms


@pytest.fixture(scope="module")
def page(kfp: Kfp, browser: Any) -> Any:
    opened = browser.new_page(viewport={"width": 1500, "height": 1250})
    opened.set_default_timeout(SLOW)
    return opened


def keep(page: Any, name: str) -> None:
    """A picture for docs/how-to/kfp-ui.md, where one is wanted."""
    keep_picture(page, name, after=1500)


def node(page: Any, name: str) -> Any:
    """A task or an artifact of the graph."""
    return page.locator(".react-flow__node").filter(has_text=re.compile(rf"^{name}$")).first


def fit(page: Any) -> None:
    page.locator(".react-flow__controls-fitview").click()


@pytest.fixture(scope="module")
def run(page: Any, kfp: Kfp, little: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Uploaded, filled in and started by hand; KFP's id of the run."""
    folder = tmp_path_factory.mktemp("compiled")
    paths = {path.stem: path for path in compile_all(folder, Platform(image=kfp.image))}
    name = f"mantis-{kfp.store[-8:]}"
    page.goto(f"{kfp.host}/#/pipeline_versions/new")
    page.locator("#newPipelineName").fill(name)
    page.locator("#pipelineDescription").fill(described(paths["instruction-tuning"]))
    page.get_by_label("Upload a file").check()
    page.locator("input[type=file]").set_input_files(paths["instruction-tuning"])
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_role("button", name="Create run").wait_for()
    keep(page, "kfp-pipeline")

    page.get_by_role("button", name="Create run").click()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    shown = page.locator("body").inner_text()
    places = [shown.index(label) for label in FORM]
    assert places == sorted(places)
    assert page.locator("#recipe").input_value() == "demo"
    assert page.locator("#store_url").input_value() == "s3://mantis"
    assert "Missing parameter" not in shown
    assert page.get_by_role("button", name="Start", exact=True).is_enabled(), "no field has to be filled in"
    page.get_by_role("button", name="Choose").nth(2).click()
    page.get_by_role("dialog").get_by_text("Default", exact=True).click()
    page.get_by_role("button", name="Use this experiment").click()
    page.locator("#overrides").fill(filled_in(little, ())["overrides"])
    page.locator("#learning_rate").fill("3e-4")
    page.locator("#store_url").fill(kfp.store)
    keep(page, "kfp-form")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/details/|/experiments/"))
    made = next(
        run for run in kfp.client.list_runs(page_size=20, sort_by="created_at desc").runs if name in run.display_name
    )
    return str(made.run_id)


@pytest.fixture(scope="module")
def ended(run: str, kfp: Kfp) -> str:
    assert kfp.ends(run) == "SUCCEEDED"
    return run


def open_run(page: Any, kfp: Kfp, run: str) -> None:
    """The page of a run. It is loaded again, because it keeps the tab that was opened before."""
    page.goto(f"{kfp.host}/#/runs/details/{run}")
    page.reload()


def enter(page: Any, kfp: Kfp, run: str) -> None:
    """The graph below the exit handler: our steps."""
    open_run(page, kfp, run)
    node(page, "run").click()
    page.get_by_role("button", name="Open sub-DAG").click()
    node(page, "preflight").wait_for()
    fit(page)


def test_the_graph_is_readable(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    for step in STEPS:
        assert node(page, step).is_visible(), step
    keep(page, "kfp-run")


def test_the_report_is_shown_as_a_page_and_as_markdown(page: Any, kfp: Kfp, ended: str) -> None:
    for artifact in ("page", "text"):
        enter(page, kfp, ended)
        node(page, artifact).click()
        page.get_by_role("button", name="Visualization").click()
        if artifact == "page":
            inner = page.frame_locator("iframe").first
            inner.get_by_text("demo-multi").first.wait_for()
        else:
            page.get_by_text(re.compile("demo-multi")).first.wait_for()
        keep(page, f"kfp-report-{artifact}")


def test_the_scores_are_one_table_with_the_benchmark_in_each_name(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    node(page, "scores").click()
    page.get_by_role("button", name="Visualization").click()
    page.get_by_text("Scalar Metrics").first.wait_for()
    keep(page, "kfp-metrics")
    shown, further = page.locator("body").inner_text(), page.get_by_label("Go to next page")
    while further.is_enabled():
        further.click()
        shown += page.locator("body").inner_text()
    for name in ("demo-multi/accuracy", "demo-single/accuracy", "train/last_loss", "train/learning_rate"):
        assert name in shown


def test_the_plan_names_the_run_and_the_loop(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    node(page, "plan").click()
    page.get_by_role("button", name="Visualization").click()
    page.get_by_text(re.compile("Run demo-")).first.wait_for()
    page.get_by_text(re.compile(r"training\.learning_rate = 0\.0003")).first.wait_for()
    keep(page, "kfp-plan")


def test_an_artifact_has_its_address_and_its_loss(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    node(page, "checkpoint").click()
    page.locator("a[href*='/artifacts/']").first.click()
    page.get_by_text("last_loss").first.wait_for()
    assert f"{kfp.store}/checkpoints/" in page.locator("body").inner_text()
    keep(page, "kfp-artifact")


def test_the_page_of_a_run_shows_its_learning_rate(page: Any, kfp: Kfp, ended: str) -> None:
    open_run(page, kfp, ended)
    page.get_by_role("button", name="Detail").click()
    page.get_by_text("learning_rate").first.wait_for()
    assert "3e-4" in page.locator("body").inner_text()
    keep(page, "kfp-detail")


def test_an_iteration_shows_its_benchmark(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    node(page, "each-benchmark").click()
    page.get_by_role("button", name="Open sub-DAG").click()
    page.locator(".react-flow__node").filter(has_text=re.compile(r"^for-loop-\d+\.0$")).first.click()
    page.get_by_role("button", name="Open sub-DAG").click()
    node(page, "evaluation").click()
    page.get_by_text("evaluation: demo-").first.wait_for()


def test_the_list_of_pipelines_shows_the_description(page: Any, kfp: Kfp, ended: str) -> None:
    page.goto(f"{kfp.host}/#/pipelines")
    page.get_by_text("learning_rate").first.wait_for()
    keep(page, "kfp-pipelines")


def newest(kfp: Kfp, before: str) -> str:
    """KFP's id of the run that was started last."""
    made = kfp.client.list_runs(page_size=1, sort_by="created_at desc").runs[0].run_id
    assert made != before
    return str(made)


@pytest.fixture(scope="module")
def clone(page: Any, kfp: Kfp, ended: str) -> str:
    """Cloned by hand with another learning rate, to its end. The form of a clone names no account."""
    open_run(page, kfp, ended)
    page.get_by_role("button", name="Clone run").click()
    page.locator("#learning_rate").fill("6e-4")
    assert page.get_by_label("Service Account").input_value() == ""
    keep(page, "kfp-clone")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/details/|/experiments/"))
    page.wait_for_timeout(3000)
    return newest(kfp, ended)


def test_a_clone_with_another_learning_rate_succeeds_as_typed(kfp: Kfp, clone: str) -> None:
    assert kfp.ends(clone) == "SUCCEEDED"
    assert kfp.client.get_run(clone).runtime_config.parameters["learning_rate"] == "6e-4"


def test_two_learning_rates_are_compared(page: Any, kfp: Kfp, ended: str, clone: str) -> None:
    """Two runs are ticked in the list. The page shows what was typed, and the scores by benchmark."""
    page.goto(f"{kfp.host}/#/pipelines")
    page.goto(f"{kfp.host}/#/runs")
    for run in (ended, clone):
        page.locator(f"[data-row-id='{run}'] input[type=checkbox]").check()
    page.get_by_role("button", name="Compare runs").click()
    page.get_by_text("Run overview").wait_for()
    page.get_by_text("learning_rate").first.wait_for()
    page.get_by_text("demo-multi/accuracy").first.wait_for()
    shown = page.locator("body").inner_text()
    assert "3e-4" in shown
    assert "6e-4" in shown
    keep(page, "kfp-compare")


def test_terminating_frees_the_gpus_and_closes_the_run_as_killed(
    page: Any, kfp: Kfp, ended: str, little: dict[str, str], kube: Kube, tracked: Callable[[str], Any]
) -> None:
    given = little | {"training.epochs": "400", "training.checkpoint_every": "20", "training.seed": "8"}
    ours, theirs = kfp.started("demo", overrides=given)
    label = f"mantis-kfp/run={ours}"
    jobs = ("-n", "mantis", "get", "trainjobs", "-l", label, "-o", "name")
    job = kube.until("a TrainJob", lambda: kube.kubectl(*jobs).strip(), 600).rpartition("/")[2]

    def left() -> str:
        """The pods of the job. They bear the label of its JobSet, not that of the run."""
        selected = f"jobset.sigs.k8s.io/jobset-name={job}"
        return str(kube.kubectl("-n", "mantis", "get", "pods", "-l", selected, "-o", "name"))

    def trains() -> bool:
        record = kfp.records(ours).get("train") if kfp.state(theirs) not in ENDED else None
        return record is not None and bool(committed(kfp.opened, f"checkpoints/{record.fingerprint}"))

    kube.until("a checkpoint", lambda: "pod/" in left() and trains(), 600)
    said = kube.kubectl("-n", "mantis", "describe", "trainjob", "-l", label)
    assert re.search(rf"^Name: +train-{ours}-", said, re.MULTILINE), "a job bears the name of its run"
    for line in (r"recipe: +demo", r"learning-rate: +\S+", r"steps: +[\d,]+"):
        assert re.search(f"mantis-kfp/{line}$", said, re.MULTILINE), line
    open_run(page, kfp, theirs)
    page.get_by_role("button", name="Terminate").click()
    keep(page, "kfp-terminate")
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    began = time.monotonic()
    kube.until("the GPUs are free", lambda: "pod/" not in left(), 60)
    freed = time.monotonic() - began
    print(f"\nthe pods of a terminated training were gone after {freed:.0f} s")
    assert freed < 30
    kube.until("the run is closed", lambda: tracked(ours).info.status == "KILLED", 180)
    assert kfp.ends(theirs) in ("FAILED", "CANCELED")


def test_a_refused_run_says_where_to_write_the_change(page: Any, kfp: Kfp, ended: str) -> None:
    failed = kfp.again(
        ended,
        "two nodes without a launcher",
        {"training.nodes": "2", "training.launcher": "local", "training.seed": "9"},
    )
    assert kfp.ends(failed) == "FAILED"
    enter(page, kfp, failed)
    node(page, "preflight").click()
    page.get_by_role("button", name="Logs").click()
    page.get_by_text("training.nodes = 2").first.wait_for()
    page.get_by_text("fill in nodes for training.nodes").first.wait_for()
    keep(page, "kfp-refused")


def test_the_log_of_a_step_is_there(page: Any, kfp: Kfp, ended: str) -> None:
    enter(page, kfp, ended)
    node(page, "report").click()
    page.get_by_role("button", name="Logs").click()
    page.get_by_text("launcher_v2.go").first.wait_for()
    keep(page, "kfp-log")
