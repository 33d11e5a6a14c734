"""The whole DAG through kfp.local, small: reuse, a real interruption, real input, lineage.

One test starts every step as a person does; the others fork them from a process with the libraries.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from openai import OpenAI
from traitlets.config import Config

import mantis as mantis_api
from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.evaluator import question_of
from components.evaluation.readers.benchmark_source import open_benchmark_source
from components.serving.chat_session import ChatSession
from components.serving.live_model import LiveModel, opened_live_model
from mantis.generation.answerer import Question
from mantis.generation.chat_messages import data_uri, openai_request
from mantis.generation.decoding import END_OF_TEXT, Decoding
from mantis.generation.sample_images import Picture, held_picture
from mantis.models.conversation import IMAGE_MARK
from mantis.runs.records import read_record
from mantis.runs.step_runner import open_run
from mantis.store.local import LocalStore
from pipelines.models.asked_model import ImageQuestion
from pipelines.models.find_model import find_model
from pipelines.models.prediction import PredictionRequest, predict
from tests.fixtures.cli import Mantis
from tests.helpers.model_server import model_server
from tests.helpers.paths import ROOT
from tests.helpers.process_groups import kill_groups
from tests.helpers.waiting import HANG_SECONDS

SMALL = (
    "--set=data.generated_conversations=320",
    "--set=evaluation.samples_per_skill=20",
    "--set=training.epochs=5",
    "--set=training.checkpoint_every=10",
)
DIRECT_TOKENS = 8  # of the profile `direct`
RESULTS = ("datasets", "mixtures", "checkpoints", "models", "responses")  # what the expensive steps write
STEPS = 100  # 320 conversations x 5 epochs / 16


def model_bytes(store: Path) -> dict[str, bytes]:
    """The weights of every committed model of a store, by file name."""
    found = {path.name: path.read_bytes() for path in store.glob("models/*/*.safetensors")}
    assert found
    return found


def committed_steps(store: Path) -> list[int]:
    return sorted(int(path.parent.name.removeprefix("step-")) for path in store.glob("checkpoints/*/step-*/COMMIT"))


def written_results(store: Path) -> dict[str, int]:
    """The time of the last write, in nanoseconds, of every file in the folders `RESULTS`."""
    return {
        path.relative_to(store).as_posix(): path.stat().st_mtime_ns
        for folder in RESULTS
        for path in (store / folder).rglob("*")
        if path.is_file()
    }


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A small run that has ended."""

    folder: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def undisturbed(mantis: Mantis, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A small run from nothing to its report."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = mantis("run", "demo", *SMALL, "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Undisturbed(folder=folder, done=done)


def test_a_run_ends_with_a_report_and_a_summary(undisturbed: Undisturbed) -> None:
    done = undisturbed.done
    path = Path(done.stdout.splitlines()[-1])
    summary = json.loads(path.read_text())
    assert {row["skill"] for row in summary["scores"]} == {"compare", "coref", "temporal", "reason", "single"}
    for row in summary["scores"]:
        assert row["samples"] == 20
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert summary["training"]["steps"] == STEPS
    assert summary["training"]["last_loss"] < summary["training"]["first_loss"]
    assert (path.parent / "report.html").stat().st_size > 10_000
    log = undisturbed.folder / ".mantis" / "runs" / path.parent.name / "run.log"
    assert "step assemble]" in log.read_text()
    assert (path.parent / "report.md").stat().st_size > 1_000


@pytest.mark.new_interpreter
def test_the_same_run_again_takes_everything_from_the_store(mantis: Mantis, undisturbed: Undisturbed) -> None:
    folder = undisturbed.folder
    before = written_results(folder / ".mantis")
    assert {path.split("/")[0] for path in before} == set(RESULTS)
    done = mantis("run", "demo", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("prepare-demo-multi", "prepare-demo-single", "assemble", "train", "convert", "report"):
        assert re.search(rf"^{step} +result was already there$", done.stdout, re.MULTILINE), done.stdout
    assert written_results(folder / ".mantis") == before


@pytest.mark.slow
def test_a_changed_learning_rate_trains_again_on_the_same_data(mantis: Mantis, undisturbed: Undisturbed) -> None:
    folder = undisturbed.folder
    done = mantis("run", "demo", *SMALL, "--set=training.learning_rate=1e-3", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("prepare-demo-multi", "assemble"):
        assert re.search(rf"^{step} +result was already there$", done.stdout, re.MULTILINE), done.stdout
    for step in ("train", "convert", "evaluate-demo-multi", "report"):
        assert re.search(rf"^{step} +done in", done.stdout, re.MULTILINE), done.stdout
    assert len(list((folder / ".mantis").glob("mixtures/*/manifest.json"))) == 1
    assert len(list((folder / ".mantis").glob("models/*/manifest.json"))) == 2


def test_mlflow_shows_the_run(undisturbed: Undisturbed) -> None:
    import mlflow

    folder = undisturbed.folder
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/.mantis/mlflow.db")
    experiment = client.get_experiment_by_name("mantis")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    run = runs[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["training.learning_rate"] == "0.0004"
    assert {"score.demo-multi", "score.demo-single", "score.mean"} <= run.data.metrics.keys()
    assert not [name for name in run.data.metrics if name.startswith(("eval/", "data/"))]
    assert run.info.run_name.startswith("demo ")
    assert "[Report](#/experiments/" in run.data.tags["mlflow.note.content"]
    datasets = {(item.dataset.name, item.tags[0].value) for item in run.inputs.dataset_inputs}
    asked = {("demo-multi", "evaluation"), ("demo-single", "evaluation")}
    assert datasets == {("generated", "recipe"), ("demo-multi+demo-single", "training"), *asked}
    version = client.get_model_version_by_alias("demo", "newest")
    logged = client.get_logged_model(version.tags["mantis.model_id"])
    of_dataset = {metric.key: metric.dataset_name for metric in logged.metrics}
    assert of_dataset["score.demo-multi"] == "demo-multi"
    assert "| demo-multi | compare | 20 |" in version.description
    kept = folder / ".mantis" / "mlflow-artifacts" / run.info.run_id / "artifacts"
    assert {file.name for file in kept.iterdir()} >= {"report.html", "report.md", "scores.json"}
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


def test_every_way_to_ask_gives_the_answers_of_evaluation(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """The trained model, asked about one to four images: in a chat, by a client, from a file, and from Python."""
    store, run_id = LocalStore(undisturbed.folder / ".mantis"), small_run_id()
    asked = [pair for name in ("demo-single", "demo-multi") for pair in evaluated_questions(store, run_id, name)]
    assert {len(question.pictures) for question, _ in asked} == {1, 2, 4}  # the demo asks about no three
    expected = [response for _, response in asked]
    assert len(set(expected)) > 1
    model = find_model(store, run_id)
    with opened_live_model(store, model, name="demo", max_tokens=DIRECT_TOKENS) as live:
        assert [chatted(live, question, tmp_path) for question, _ in asked] == expected
        with model_server(live, tokens=DIRECT_TOKENS) as served:
            client = OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
            bodies = [
                openai_request(question, Decoding(max_new_tokens=DIRECT_TOKENS), model="demo", link=data_uri)
                for question, _ in asked
            ]
            answers = [client.chat.completions.create(**body).choices[0].message.content for body in bodies]
            assert answers == expected
    rows = [ImageQuestion(question.prompt, [each.load() for each in question.pictures]) for question, _ in asked]
    with mantis_api.load_model(run_id, store=store.url, max_tokens=DIRECT_TOKENS) as loaded:
        assert loaded.ask_all(rows) == expected
    lines = []
    for question, _ in asked:
        names = [f"{question.id}-{place}.jpg" for place in range(len(question.pictures))]
        for name, picture in zip(names, question.pictures, strict=True):
            (tmp_path / name).write_bytes(picture.load())
        lines.append(json.dumps({"id": question.id, "query": question.prompt, "images": names}))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    decoding = Decoding(max_new_tokens=DIRECT_TOKENS, stop=(END_OF_TEXT,))
    request = PredictionRequest(address=str(tmp_path / "questions.jsonl"), decoding=decoding)
    assert [each.line["response"] for each in predict(store, model, request)] == expected


def test_the_page_gives_the_answers_of_evaluation(undisturbed: Undisturbed, browser: Any, tmp_path: Path) -> None:
    """A person drops one to four images on the server's page, and asks what a benchmark asked."""
    store, run_id = LocalStore(undisturbed.folder / ".mantis"), small_run_id()
    asked = [pair for name in ("demo-single", "demo-multi") for pair in evaluated_questions(store, run_id, name)]
    marks = {question.id: IMAGE_MARK * len(question.pictures) for question, _ in asked}
    asked = [(question, response) for question, response in asked if question.prompt.startswith(marks[question.id])]
    assert {len(question.pictures) for question, _ in asked} == {1, 2, 4}
    with opened_live_model(store, find_model(store, run_id), name="demo", max_tokens=DIRECT_TOKENS) as live:
        four = next(question for question, _ in asked if len(question.pictures) == 4)
        text = four.prompt.removeprefix(marks[four.id])
        three = replace(four, id="three", prompt=IMAGE_MARK * 3 + text, pictures=four.pictures[:3])
        [[answer]] = live.answerer.answer([[live.prepare(three)]])  # the demo asks about no three images
        with model_server(live, tokens=DIRECT_TOKENS) as served:
            page = browser.new_page()
            page.goto(served.url)
            answers = [ask_page(page, question, tmp_path) for question in (three, *(each for each, _ in asked))]
            page.close()
    assert answers == [answer, *(response for _, response in asked)]


def ask_page(page: Any, question: Question, folder: Path) -> str:
    """Drop the images on the page, ask, and return the text of the answer."""
    page.click("#reset")
    files = [folder / f"{question.id.replace('/', '-')}-{place}.jpg" for place in range(len(question.pictures))]
    for file, picture in zip(files, question.pictures, strict=True):
        file.write_bytes(picture.load())
    page.set_input_files("#files", files)
    page.locator("#new figure").nth(len(files) - 1).wait_for()
    page.fill("#text", question.prompt.removeprefix(IMAGE_MARK * len(files)))
    page.press("#text", "Enter")
    page.locator(".figures").first.wait_for()
    return str(page.locator(".assistant > span").last.text_content())


def evaluated_questions(store: LocalStore, run_id: str, name: str) -> list[tuple[Question, str]]:
    """Five questions of a benchmark for each number of images, and the responses that the run's evaluation stored."""
    recipe = open_run(run_id, store.url).recipe
    evaluation = read_record(store, run_id, f"evaluate-{name}")
    lines = [json.loads(line) for line in store.get(f"{evaluation.key}/responses/actual-00000.jsonl").splitlines()]
    responses = {line["id"]: line["response"] for line in lines}
    benchmark = load_benchmark(name, profile=recipe.evaluation.profile, family=recipe.model.family)
    assert benchmark.resolved.decoding.max_new_tokens == DIRECT_TOKENS
    with open_benchmark_source(recipe, benchmark, store) as source:
        samples = [sample for sample in source.read().samples if sample.id in responses]
        by_images = [[each for each in samples if len(each.pictures) == count][:5] for count in (1, 2, 4)]
        chosen = [sample for found in by_images for sample in found]
        held = [replace(sample, pictures=tuple(map(in_memory, sample.pictures))) for sample in chosen]
    return [(question_of(sample, sample.pictures, recipe.evaluation), responses[sample.id]) for sample in held]


def small_run_id() -> str:
    changes = dict(option.removeprefix("--set=").split("=") for option in SMALL)
    return mantis_api.load_recipe("demo", changes).default_run_id()


def in_memory(picture: Picture) -> Picture:
    return held_picture(picture.load(), picture.path)


def chatted(live: LiveModel, question: Question, folder: Path) -> str:
    session = ChatSession(live)
    for place, picture in enumerate(question.pictures):
        (folder / f"chat-{place}.jpg").write_bytes(picture.load())
        session.add_image(folder / f"chat-{place}.jpg")
    return session.ask(question.prompt, lambda _: None).text


def test_the_notebook_of_the_tutorial_runs_and_shows_pictures(
    undisturbed: Undisturbed, mantis_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(mantis_environment):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    for option in SMALL:
        assert option.removeprefix("--set=") in book.cells[0].source
    limits = {"timeout": int(HANG_SECONDS), "startup_timeout": int(HANG_SECONDS)}
    place = {"metadata": {"path": str(undisturbed.folder)}}
    # Jupyter chooses TCP ports long before its kernel binds them, and other programs can take them meanwhile. A socket
    # file has no such gap. Its path may have 107 bytes, which tmp_path can exceed.
    with TemporaryDirectory() as sockets:
        kernel = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        config = Config(KernelManager=kernel, NotebookClient=limits)
        NotebookClient(book, resources=place, config=config).execute()
    shown = [output.get("data", {}) for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in data for data in shown)
    assert any("<img" in data.get("text/html", "") for data in shown)
    losses = [
        float(loss)
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for loss in re.findall(r"StepResult\(step=1, loss=([\d.]+)", output.get("text", ""))
    ]
    store = LocalStore(undisturbed.folder / ".mantis")
    checkpoint = read_record(store, small_run_id(), "train")
    trained = json.loads(store.get(f"{checkpoint.key}/metrics.jsonl").splitlines()[0])
    assert trained["step"] == 1
    assert losses == [pytest.approx(trained["loss"], rel=1e-4)]  # two ranks under ZeRO-3 add up in another order


def test_lineage_of_a_prediction(mantis: Mantis, undisturbed: Undisturbed) -> None:
    folder = undisturbed.folder
    store = folder / ".mantis"
    part = next(iter(sorted(store.glob("evaluations/*/demo-multi/*/responses/actual*.jsonl"))))
    sample = json.loads(part.read_text().splitlines()[0])
    uri = part.parent.parent.as_uri()
    done = mantis("lineage", f"{uri}#{sample['id']}", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (sample["question"][:20], sample["images"][0]["sha256"], " models/", " checkpoints/", " mixtures/"):
        assert word in done.stdout, done.stdout
    assert " datasets/demo-multi/" in done.stdout
    assert "Every recorded byte is unchanged" in done.stdout


@pytest.fixture
def started(mantis_environment: dict[str, str]) -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Start `mantis run`, to be hurt."""
    children: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "run", "demo", *SMALL],
            cwd=folder,
            env=mantis_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        children.append(child)
        return child

    yield start
    kill_groups(children)


def ranks_of(child: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that the ranks' agent started; their arguments are its own."""
    found = []
    for process in psutil.Process(child.pid).children(recursive=True):
        try:
            if all("components.training" in one.cmdline() for one in (process, process.parent())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until_committed(child: "subprocess.Popen[str]", store: Path, step: int) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not any(committed >= step for committed in committed_steps(store)):
        assert child.poll() is None, child.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_rank_and_ctrl_c_change_nothing_in_the_result(
    mantis: Mantis, undisturbed: Undisturbed, started: Callable[[Path], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    store = tmp_path / ".mantis"

    first = started(tmp_path)
    until_committed(first, store, 10)
    victim = ranks_of(first)[-1]
    victim.kill()
    said, _ = first.communicate(timeout=HANG_SECONDS)
    assert first.returncode == 1, said
    assert "Traceback" not in said
    assert "train failed" in said
    killed_at = committed_steps(store)[-1]
    assert killed_at < STEPS

    second = started(tmp_path)
    until_committed(second, store, killed_at + 10)
    os.kill(second.pid, signal.SIGINT)
    said, _ = second.communicate(timeout=HANG_SECONDS)
    assert second.returncode == 130, said
    assert f"the checkpoint of train at step {committed_steps(store)[-1]}" in said
    assert "Repeat the command to continue from there." in said
    run_id = next((store / "runs").iterdir()).name
    assert f"{run_id}  stopped" in mantis("status", cwd=tmp_path).stdout
    assert "Traceback" not in said
    assert committed_steps(store)[-1] < STEPS
    assert not [process for process in psutil.process_iter() if is_rank_of(process, store)]

    done = mantis("run", "demo", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # The undisturbed store may hold a second model (of another learning rate); ours must be one of them, bit by bit.
    others = [path.read_bytes() for path in (undisturbed.folder / ".mantis").glob("models/*/*.safetensors")]
    assert all(weights in others for weights in model_bytes(store).values())


def is_rank_of(process: psutil.Process, store: Path) -> bool:
    try:
        return "components.training" in process.cmdline() and store.as_uri() in process.cmdline()
    except psutil.Error:
        return False


def test_real_conversations(mantis: Mantis, test_data: Path, tmp_path: Path) -> None:
    source = test_data / "mantis-chat"
    few = ["--set=evaluation.samples_per_skill=10", "--set=evaluation.controls=[]"]
    few += ["--set=training.max_steps=3", "--set=training.log_every=1"]
    done = mantis("run", "demo", "--source", source, *few, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    assert summary["training"]["last_loss"] < summary["training"]["first_loss"]
    assert re.search(r"^mantis-chat +100 +\d+", done.stderr, re.MULTILINE), "the rows that were kept"

    import lance
    import pyarrow.parquet as parquet

    prepared = next((tmp_path / ".mantis" / "datasets" / "mantis-chat").iterdir())
    kept = lance.dataset(str(prepared / "data.lance"))
    ledger = parquet.read_table(prepared / "ledger.parquet").to_pylist()
    dropped = {row["row"] for row in ledger if row["action"] == "dropped"}
    assert kept.count_rows() + len(dropped) == 100
    assert sum(len(row["sha256"]) for row in kept.to_table(columns=["sha256"]).to_pylist()) == 377
    report = (Path(done.stdout.splitlines()[-1]).parent / "report.md").read_text()
    assert "mantis-chat" in report
