"""The form of the command line: help, examples, JSON, tables, completion, exit codes."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from components.data.step import prepare, resolve_subsets
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MadeBy, Manifest, commit_manifest
from mantis.artifacts.training_progress import TrainingProgress, put_progress
from mantis.models.registry import family_names
from mantis.runs.records import State, StepRecord, note_waiting
from mantis.store.local import LocalStore
from mantis.synthetic import write_demo_data
from pipelines.cli.commands import run_commands as run_commands
from pipelines.cli.console import addresses, ids, names, numbers, show_table, texts
from pipelines.cli.main import app
from pipelines.cli.prepared_table import prepared_subsets
from pipelines.cli.recipe_fields import fields_of
from pipelines.cli.reference_pages.__main__ import main as write_pages
from pipelines.cli.reference_pages.command_page import commands
from pipelines.execution.preflight import preflight
from pipelines.execution.resolve import shipped_recipes
from tests.helpers.terminal import numbers_in, on_terminal

EVERY = dict(commands())
# Commands that start work or a server: their JSON is tested where the work is.
WORKING = {
    "mantis run", "mantis ablate", "mantis sweep", "mantis evaluate", "mantis data prepare", "mantis rescore",
    "mantis compare",
}  # fmt: skip
LISTINGS = {
    name for name, command in EVERY.items() if any("--json" in param.opts for param in command.params)
} - WORKING
VERBS = {"list", "show", "fields", "plan", "status", "lineage", "gc", "doctor", "estimate"}


def mantis(*arguments: Any, **environment: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


@pytest.fixture
def stored(local_store: LocalStore) -> LocalStore:
    """A store with a run whose training was stopped at step 174, and whose data has one result."""
    run = preflight("demo", {"training.learning_rate": "1e-3"}, "stopped-run", local_store.url)
    made_by = MadeBy(
        run=run.id, step="prepare-demo-multi", revision=1, config_hash="", code_version="", image_digest=""
    )
    key = f"datasets/demo-multi/{'a' * 64}"
    dataset = Manifest(
        kind=ArtifactKind.DATASET, key=key, fingerprint="a" * 64, made_by=made_by,
        summary={"rows": 12345, "kept": 12000},
    )  # fmt: skip
    commit_manifest(local_store, dataset)
    records = (
        StepRecord(step="prepare-demo-multi", state=State.DONE, started="2026-01-02T03:04:05+00:00", seconds=12.3,
                   key=dataset.key, fingerprint="a" * 64),
        StepRecord(step="train", state=State.FAILED, started="2026-01-02T03:05:05+00:00", seconds=98765.4,
                   fingerprint="b" * 64, reason="Stopped by Ctrl-C. The same command continues from there."),
    )  # fmt: skip
    for record in records:
        local_store.put(run.key(f"steps/{record.step}.json"), record.model_dump_json().encode())
    for step in (100, 174):
        local_store.put(f"checkpoints/{'b' * 64}/step-{step:08d}/COMMIT", b"{}")
    local_store.put(f"checkpoints/{'b' * 64}/step-00000180/state.json", b"{}")
    return local_store


def test_the_commands_are_those_of_the_table() -> None:
    assert set(EVERY) == {
        "mantis run", "mantis status", "mantis report", "mantis compare", "mantis ablate", "mantis ui", "mantis sweep",
        "mantis evaluate", "mantis rescore", "mantis lineage", "mantis doctor", "mantis gc", "mantis job",
        "mantis train estimate",
        "mantis data list", "mantis data fetch", "mantis data plan", "mantis data prepare", "mantis data generate",
        "mantis data show",
        "mantis model list", "mantis model fetch", "mantis model import", "mantis model verify", "mantis model publish",
        "mantis model chat",
        "mantis model predict", "mantis model serve", "mantis model deploy",
        "mantis benchmark list", "mantis benchmark show", "mantis benchmark fetch", "mantis benchmark export",
        "mantis recipe list", "mantis recipe show", "mantis recipe fields",
        "mantis pipeline compile", "mantis pipeline submit",
    }  # fmt: skip


def test_the_help_begins_with_the_daily_commands() -> None:
    said = mantis("-h").output
    panels = re.findall(r"╭─ (\S.*?) ─", said)
    assert panels == ["Options", "Every day", "Data, models, benchmarks, recipes", "Upkeep and clusters"]
    assert said.index("│ run ") < said.index("│ data ") < said.index("│ doctor ")
    assert mantis("--help").output == said == mantis().output


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_has_an_example_that_parses(name: Any) -> None:
    command = EVERY[name]
    shown = re.findall(r"- `(.*?)`", command.epilog or "")
    assert shown, name
    for example in shown:
        part = next(part for part in example.partition(" > ")[0].split(" | ") if "mantis" in part)
        words = [word for word in shlex.split(part) if not re.match(r"[A-Z_]+=", word)]
        assert " ".join(words[: len(name.split())]) == name
        command.make_context(name, words[len(name.split()) :], resilient_parsing=False)
    for flag in ("-h", "--help"):
        done = mantis(*name.split()[1:], flag)
        assert done.exit_code == 0
        assert "Examples" in done.output


@pytest.mark.parametrize("name", ["data", "model", "benchmark", "recipe", "train", "pipeline"])
def test_a_noun_alone_shows_its_verbs(name: str) -> None:
    done = mantis(name)
    assert done.exit_code == 0
    for command in EVERY:
        if command.startswith(f"mantis {name} "):
            assert f"│ {command.split()[-1]} " in done.output


def test_family_names_in_help_come_from_the_registry() -> None:
    for command in (("model", "import"), ("model", "verify")):
        said = mantis(*command, "-h", COLUMNS="200").output
        for family in family_names():
            assert family in said


def test_version_names_package_and_code() -> None:
    done = mantis("--version", MANTIS_CODE_VERSION="0123456789ab")
    assert done.exit_code == 0
    assert re.fullmatch(r"mantis \d+\.\d+\.\d+\S* \(code 0123456789ab\)\n", done.output)


def test_help_and_version_import_nothing_heavy() -> None:
    heavy = ["torch", "deepspeed", "kfp", "transformers", "mlflow", "numpy", "pyarrow", "kubernetes"]
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.main import app\n"
        "for given in (['--help'], ['--version'], ['data', '--help']):\n"
        "    assert CliRunner().invoke(app, given).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_listing_has_json() -> None:
    for name in EVERY:
        if name.split()[-1] in VERBS:
            assert name in LISTINGS, f"{name} has no --json"


ARGUMENTS = {
    "mantis data plan": ["demo", "--image-tokens", "64"],
    "mantis benchmark show": ["demo-multi"],
    "mantis recipe show": ["demo"],
    "mantis train estimate": ["mantis-siglip"],
    "mantis lineage": [f"datasets/demo-multi/{'a' * 64}", "--no-sources"],
}


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_json_is_one_document_alone_on_stdout(name: Any, stored: LocalStore, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "What is one plus one?"}, {"role": "assistant", "content": "two"}]
    (tmp_path / "rows.json").write_text(json.dumps([{"id": "a", "images": [], "conversation": turns}]))
    takes_store = any("--store" in param.opts for param in EVERY[name].params)
    rows = [str(tmp_path / "rows.json")] if name == "mantis data show" else []
    given = [*name.split()[1:], *ARGUMENTS.get(name, rows), *(["--store", stored.url] if takes_store else []), "--json"]
    done = mantis(*given)
    assert done.exit_code == 0 or name == "mantis doctor", done.output
    data = json.loads(done.stdout)
    assert isinstance(data, dict)
    assert data
    assert all(re.fullmatch(r"[a-z_]+", key) for key in data)


def test_json_of_a_run(stored: LocalStore) -> None:
    data = json.loads(mantis("status", "--store", stored.url, "--json").stdout)
    (run,) = data["runs"]
    assert (run["run"], run["state"], run["recipe"]) == ("stopped-run", "stopped", "demo")
    assert run["changed"] == {"training.learning_rate": "0.001"}
    steps = json.loads(mantis("status", "stopped-run", "--store", stored.url, "--json").stdout)["steps"]
    assert [(step["step"], step["state"]) for step in steps] == [
        ("prepare-demo-multi", "done"), ("train", "stopped"), ("preflight", "done"),
    ]  # fmt: skip
    assert steps[0]["address"] == f"datasets/demo-multi/{'a' * 64}"


def test_status_says_how_far_a_training_is(stored: LocalStore) -> None:
    now = datetime.now(UTC)
    record = StepRecord(step="train", state=State.STARTED, started=now.isoformat(), fingerprint="b" * 64)
    stored.put("runs/stopped-run/steps/train.json", record.model_dump_json().encode())
    progress = TrainingProgress(
        step=180, steps=2000, loss=1.2345, held_out_loss=1.5, samples_per_second=2.064, tokens_per_second=1234.5,
        seconds_left=1226.0, at=now,
    )  # fmt: skip
    prefix = f"checkpoints/{'b' * 64}"
    put_progress(stored, prefix, progress)
    said = "step 180 of 2,000, loss 1.234, held-out loss 1.5, 2.06 samples/s, 1,230 tokens/s, 20:26 left"
    assert f"{said}, last checkpoint: step 174" in mantis("status", "stopped-run", "--store", stored.url).stdout
    assert "training 9%, 20:26 left" in mantis("status", "--store", stored.url).stdout
    steps = json.loads(mantis("status", "stopped-run", "--store", stored.url, "--json").stdout)["steps"]
    losses = {step["step"]: step["progress"] and step["progress"]["loss"] for step in steps}
    assert losses == {"prepare-demo-multi": None, "train": 1.2345, "preflight": None}
    put_progress(stored, prefix, progress.model_copy(update={"at": now - timedelta(hours=3)}))
    assert ", last seen 3:00:0" in mantis("status", "stopped-run", "--store", stored.url).stdout


def test_status_says_what_a_training_waits_for(stored: LocalStore) -> None:
    started = datetime.now(UTC).isoformat()
    record = StepRecord(step="train", state=State.STARTED, started=started, fingerprint="b" * 64)
    stored.put("runs/stopped-run/steps/train.json", record.model_dump_json().encode())
    never = "waiting: suspended in queue a100 until it is admitted: request > maximum capacity (136 > 128)"
    for reason in (never, ""):
        note_waiting(stored, "stopped-run", "train", reason)
        said = mantis("status", "stopped-run", "--store", stored.url)
        assert (never in said.stdout) == (reason == never)
        (train,) = [
            step
            for step in json.loads(mantis("status", "stopped-run", "--store", stored.url, "--json").stdout)["steps"]
            if step["step"] == "train"
        ]
        assert train["state"] == "started"
        assert train["reason"].startswith(reason)


def test_prepared_data_is_counted_with_its_reasons(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_demo_data(raw, seed=0, conversations=20, samples_per_skill=1, workers=1)
    rows = json.loads((raw / "demo-single" / "train.json").read_text())
    rows[0]["images"] = ["away.jpg"]
    (raw / "demo-single" / "train.json").write_text(json.dumps(rows))
    overrides = {"data.source": str(raw), "data.subsets": "[]", "data.max_dropped": "1"}
    run = preflight("demo", overrides, "", (tmp_path / "store").as_uri())
    for subset in resolve_subsets(run):
        prepare(run, subset)
    subsets = {each["name"]: each for each in prepared_subsets(run)}
    assert set(subsets) == {"demo-multi", "demo-single"}
    single = subsets["demo-single"]
    assert (single["rows"], single["kept"]) == (len(rows), len(rows) - 1)
    assert single["dropped"] == {"image-missing": 1}
    assert single["repaired"] == {}


def listing(name: str, store: str) -> list[str]:
    return {
        "data plan": ["data", "plan", "mantis-idefics2", "--image-tokens", "64", "--store", store],
        "data list": ["data", "list", "--store", store],
        "benchmark list": ["benchmark", "list", "--store", store],
        "status": ["status", "stopped-run", "--store", store],
        "runs": ["status", "--store", store],
    }[name]


@pytest.mark.parametrize("name", ["data plan", "data list", "benchmark list", "status", "runs"])
def test_numbers_stay_whole_at_80_columns_and_in_a_pipe(name: str, stored: LocalStore, tmp_path: Path) -> None:
    given = listing(name, stored.url)
    wide = on_terminal(*given, columns=400, cwd=tmp_path)
    narrow = on_terminal(*given, columns=80, cwd=tmp_path)
    piped = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *given], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"COLUMNS": "80"},
    ).stdout  # fmt: skip
    expected = numbers_in(piped)
    assert len(expected) >= 3
    assert "…" not in piped
    assert expected <= numbers_in(wide)
    assert expected <= numbers_in(narrow)
    assert [line for line in narrow.splitlines() if len(line) > 80 and "a" * 64 not in line] == []


def test_an_address_can_be_copied_at_80_columns(stored: LocalStore, tmp_path: Path) -> None:
    said = on_terminal("status", "stopped-run", "--store", stored.url, columns=80, cwd=tmp_path)
    assert f"prepare-demo-multi  datasets/demo-multi/{'a' * 64}" in said


def shown(
    columns: Any,
    rows: Any,
    capsys: pytest.CaptureFixture[str],
    width: Any,
    **more: Any,
) -> Any:
    terminal: Any = FakeTerminal(width=width)
    show_table(columns, rows, **more, to=terminal)
    return capsys.readouterr().out.splitlines()


class FakeTerminal:
    """Prints as a terminal of this width."""

    def __init__(self, width: Any) -> None:
        from rich.console import Console

        self.width, self.is_terminal, self.inner = width, True, Console(highlight=False, width=width)

    def print(self, *arguments: Any, **more: Any) -> None:
        self.inner.print(*arguments, **more)

    def __getattr__(self, name: Any) -> Any:
        return getattr(self.inner, name)


def test_a_table_that_fits_is_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown([*ids("run"), *numbers("rows"), *texts("note")], [("a", "1", "x"), ("bb", "1,234", "y")], capsys, 40)
    assert lines == ["run   rows  note", "a        1  x", "bb   1,234  y"]


def test_a_table_that_does_not_fit_continues_in_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [*ids("run"), *names("title"), *numbers("one", "two"), *texts("words"), *addresses("address")]
    rows = [("first-run", "a title of many words", "123,456,789", "987,654,321", "words " * 12, "models/" + "c" * 40)]
    lines = shown(columns, rows, capsys, 40)
    text = "\n".join(lines)
    assert "123,456,789" in text
    assert "987,654,321" in text
    assert "a title of many words" not in text
    assert text.count("words") == 13
    assert lines.count("run        words") == 1
    assert f"first-run  models/{'c' * 40}" in lines
    assert max(len(line) for line in lines if "models/" not in line) <= 40


@pytest.mark.parametrize(
    ("command", "place", "typed", "expected"),
    [
        ("mantis run", "recipe", "dem", ["demo"]),
        ("mantis data plan", "recipe", "mantis-c", ["mantis-clip"]),
        ("mantis run", "recipe", "mi", ["mine.yaml"]),
        ("mantis status", "run_id", "stop", ["stopped-run"]),
        ("mantis compare", "runs", "", ["stopped-run"]),
        ("mantis benchmark show", "name", "mantis", ["mantis-eval"]),
        ("mantis rescore", "benchmark", "demo-m", ["demo-multi"]),
        ("mantis data fetch", "subsets", "nl", ["nlvr2"]),
        ("mantis model fetch", "models", "fuyu", ["fuyu-8b"]),
        ("mantis model import", "family", "llava-s", ["llava-siglip"]),
        ("mantis run", "set_", "training.learning", ["training.learning_rate="]),
        ("mantis run", "recipe", "nothing-like-it", []),
    ],
)
def test_the_shell_completes(
    command: str,
    place: str,
    typed: str,
    expected: Any,
    stored: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANTIS_STORE", stored.url)
    param = next(each for each in EVERY[command].params if each.name == place)
    context = typer.Context(EVERY[command])
    assert [item.value for item in param.shell_complete(context, typed)] == expected


def test_completion_of_a_store_that_is_away_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANTIS_STORE", "ftp://nowhere")
    param = next(each for each in EVERY["mantis status"].params if each.name == "run_id")
    assert param.shell_complete(typer.Context(EVERY["mantis status"]), "") == []


def test_bash_gets_completions_from_the_command_itself(mantis_environment: dict[str, str], tmp_path: Path) -> None:
    asked = {"_MANTIS_COMPLETE": "complete_bash", "COMP_WORDS": "mantis run dem", "COMP_CWORD": "2"}
    code = "from pipelines.cli.main import app; app(prog_name='mantis')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=mantis_environment | asked, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["demo"], done.stderr


@pytest.mark.parametrize(
    ("given", "suggestion", "code"),
    [
        (["statsu"], "'status'", 2),
        (["data", "lst"], "'list'", 2),
        (["status", "--stor", "x"], "--store", 2),
        (["run", "mantis-siglipp"], "Did you mean mantis-siglip?", 1),
        (["run", "demo", "--set", "training.learning_rat=1"], "Did you mean learning_rate?", 1),
        (["run", "demo", "--set", "model.family=llava-clipp"], "Did you mean llava-clip?", 1),
        (["benchmark", "show", "mantis-evl"], "Did you mean mantis-eval?", 1),
        (["data", "fetch", "nlvr"], "Did you mean nlvr2?", 1),
        (["model", "fetch", "idefics2"], "Did you mean idefics2-8b?", 1),
        (["status", "stoped-run"], "Did you mean stopped-run?", 1),
        (["report", "stoped-run"], "Did you mean stopped-run?", 1),
        (["gc", "--forget", "stoped-run"], "Did you mean stopped-run?", 1),
        (["recipe", "fields", "trainin"], "Did you mean training?", 1),
        (["run", "./nope.yaml"], "there is no such file", 1),
        (["run", "demo", "--set", "evaluation.benchmarks=demo-multi"], "[demo-multi]", 1),
        (["rescore", __file__], "line 1 is not JSON", 1),
        (["ui", "--port", "99999"], "65535", 2),
        (["job"], "RECIPE, --shipped, --check", 2),
        (["pipeline", "compile", "--check", "--image", "x"], "leave out --image", 2),
        (["compare"], "Missing argument", 2),
        (["model", "import", "x", "--family", "fuyuu"], "Did you mean fuyu?", 1),
        (["data", "generate", __file__], "is a file", 1),
    ],
)
def test_wrong_input_is_explained(
    given: Any, suggestion: str, code: int, stored: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANTIS_STORE", stored.url)
    done = mantis(*given, COLUMNS="200")
    assert done.exit_code == code, done.output
    assert suggestion in done.stderr
    assert done.stdout == ""
    assert isinstance(done.exception, SystemExit)


def test_ctrl_c_ends_any_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_store: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_commands, "opened", interrupted)
    done = mantis("status")
    assert done.exit_code == 130
    assert "Stopped." in done.stderr


def test_ctrl_c_says_what_was_saved(stored: LocalStore) -> None:
    from mantis.runs.step_runner import open_run
    from pipelines.execution.local_run import what_was_saved
    from pipelines.execution.supervisor import InterruptedRunError

    said = what_was_saved(open_run("stopped-run", stored.url))
    assert said == "Saved: prepare-demo-multi, the checkpoint of train at step 174."
    assert InterruptedRunError("Stopped.").exit_code == 130


def test_a_port_in_use_is_an_error(stored: LocalStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = mantis("ui", "--port", taken.getsockname()[1], "--store", stored.url)
    assert done.exit_code == 1
    assert "cannot be used" in done.stderr


def test_the_line_behind_a_run_leads_to_the_table_of_runs(
    stored: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mantis.runs.step_runner import open_run
    from mantis.tracking.mlflow_runs import open_tracked_run
    from mantis.tracking.runs_view import keep_view
    from pipelines.cli.runs_page import runs_line

    run = open_run("stopped-run", stored.url)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert runs_line(run) == f"runs    mantis ui --open --store {stored.url}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # stands for a server
    assert runs_line(run) == ""
    tracked = open_tracked_run(run)
    page = f"#/experiments/{tracked.experiment}/runs?workflowType=machine_learning"
    assert runs_line(run) == f"runs    sqlite:///{tmp_path}/mlflow.db/{page}"
    keep_view(tracked.client, tracked.experiment)
    assert runs_line(run) == f"runs    sqlite:///{tmp_path}/mlflow.db/{page}&viewStateShareKey=mantis"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert runs_line(run) == ""


def test_lineage_takes_a_key_and_a_run(stored: LocalStore) -> None:
    by_key = mantis("lineage", f"datasets/demo-multi/{'a' * 64}", "--no-sources", "--store", stored.url)
    by_run = mantis("lineage", "stopped-run", "--no-sources", "--store", stored.url)
    assert by_key.exit_code == 0, by_key.output
    assert by_key.output == by_run.output
    assert "rows=12345" in by_key.output


def test_recipe_fields_are_those_of_the_classes() -> None:
    from mantis.config.recipe import Recipe

    fields = {field.path: field for field in fields_of(Recipe)}
    assert fields["training.learning_rate"].default == 1e-5
    assert fields["training.learning_rate"].bounds == "> 0"
    assert fields["training.learning_rate"].decides_results
    assert not fields["data.workers"].decides_results
    assert not fields["cluster.namespace"].decides_results
    assert fields["data.subsets[].repeat"].bounds == "≥ 1"
    assert fields["name"].required
    for name in shipped_recipes():
        done = mantis("recipe", "show", name, "--json")
        for section, values in json.loads(done.stdout).items():
            for key in values if isinstance(values, dict) else ():
                assert any(path.startswith(f"{section}.{key}") for path in fields), f"{section}.{key}"


def test_the_reference_pages_are_current_and_a_change_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_pages(["--check"]) == 0, "run: make compile"
    assert write_pages([str(tmp_path)]) == 0
    assert write_pages(["--check", str(tmp_path)]) == 0
    page = tmp_path / "cli.md"
    for name in EVERY:
        assert f"### {name}\n" in page.read_text()
    page.write_text(page.read_text().replace("mantis status", "mantis state"))
    assert write_pages(["--check", str(tmp_path)]) == 1
    assert "cli.md" in capsys.readouterr().err
