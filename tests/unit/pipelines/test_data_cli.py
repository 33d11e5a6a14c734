import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from components.data.step import prepare
from mantis.runs.records import read_record, read_records
from mantis.store.opening import open_store
from mantis.synthetic import write_demo_data
from pipelines.cli.main import app
from pipelines.execution.preflight import preflight
from tests.fixtures.data import RawFolder

WIDE = {"COLUMNS": "300", "NO_COLOR": "1"}


def mantis(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=WIDE)


def line_of(done: Result, name: str) -> list[str]:
    return next(line.split() for line in done.output.splitlines() if line.startswith(name))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


def test_plan_prints_the_epoch_before_anything_is_there(store: str, tmp_path: Path) -> None:
    done = mantis("data", "plan", "data-mantis-instruct-balanced", "--image-tokens", 64, "--store", store)
    assert done.exit_code == 0, done.output
    assert "844,121 samples an epoch; 1 epoch(s) at 128 samples: 6,595 steps" in done.output
    assert line_of(done, "llava_665k_multi")[:5] == ["llava_665k_multi", "coref", "312,611", "162,164", "162,164"]
    assert line_of(done, "temporal")[1:4] == ["13,563", "13,563", "57,684"]
    assert "forbid commercial use: nlvr2" in done.output
    assert not (tmp_path / "store").exists()
    fewer = mantis("data", "plan", "data-mantis-instruct", "--set", "data.skills=[coref]", "--store", store)
    assert "321,064 samples an epoch" in fewer.output


def test_plan_counts_the_source_and_then_what_was_prepared(store: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_demo_data(raw, seed=0, conversations=20, samples_per_skill=1, workers=1)
    rows = json.loads((raw / "demo-single" / "train.json").read_text())
    rows[0]["images"] = ["away.jpg"]
    (raw / "demo-single" / "train.json").write_text(json.dumps(rows))
    asked = ("data", "plan", "demo", "--source", raw, "--store", store)
    before = mantis(*asked)
    assert before.exit_code == 0, before.output
    assert line_of(before, "demo-single")[1:3] == ["single", str(len(rows))]
    assert "rows at the source" in before.output
    overrides = {"data.source": str(raw), "data.subsets": "[]", "data.max_dropped": "1"}
    run = preflight("demo", overrides, "", store)
    prepare(run, "demo-single")
    after = mantis(*asked)
    assert line_of(after, "demo-single")[2] == str(len(rows) - 1)
    assert "rows prepared" in after.output
    listed = mantis("data", "list", "--store", store)
    assert f"{len(rows) - 1} of {len(rows)} rows kept" in listed.output


def test_list_shows_the_table_and_what_a_source_has(store: str, tmp_path: Path) -> None:
    write_demo_data(tmp_path / "raw" / "x", seed=0, conversations=20, samples_per_skill=1, workers=1)
    (tmp_path / "raw" / "x" / "demo-multi").rename(tmp_path / "raw" / "nlvr2")
    done = mantis("data", "list", "--source", tmp_path / "raw", "--store", store)
    assert done.exit_code == 0, done.output
    assert line_of(done, "nlvr2")[:6] == ["nlvr2", "reason", "86,373", "2/2", "2", "105"]
    assert "16 rows, 0.00 GB" in done.output
    assert line_of(done, "chartqa")[-1] == "GPL-3.0"


def test_what_was_not_fetched_is_refused_with_the_command_that_brings_it(store: str) -> None:
    done = mantis("run", "data-ablation-1-coref", "--set", "evaluation.benchmarks=[demo-single]", "--store", store)
    assert done.exit_code == 1
    assert "mantis data fetch lrv_multi llava_665k_multi" in done.output


def test_a_source_without_the_mixture_says_how_to_train_on_what_is_there(store: str, tmp_path: Path) -> None:
    write_demo_data(tmp_path / "raw", seed=0, conversations=20, samples_per_skill=1, workers=1)
    (tmp_path / "raw" / "demo-single").rename(tmp_path / "raw" / "mine")
    benchmarks = "evaluation.benchmarks=[demo-single]"
    given = ("--source", tmp_path / "raw", "--set", benchmarks, "--store", store)
    done = mantis("run", "data-ablation-1-coref", *given)
    assert done.exit_code == 1
    assert "--set data.mixture=null" in done.output
    assert "no known skill" in mantis("data", "plan", "data-pretrain", *given, "--set", "data.mixture=null").output


def test_preflight_warns_of_terms(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_demo_data(tmp_path / "raw", seed=0, conversations=20, samples_per_skill=1, workers=1)
    (tmp_path / "raw" / "demo-single").rename(tmp_path / "raw" / "nlvr2")
    overrides = {"data.source": str(tmp_path / "raw"), "data.subsets": "[{name: nlvr2}]"}
    run = preflight("demo", overrides, "", store)
    (line,) = [record for record in caplog.records if "forbid commercial use: nlvr2" in record.getMessage()]
    assert line.levelname == "WARNING"
    assert read_record(run.store, run.id, "preflight").state == "done"


def test_prepare_says_what_became_of_the_rows_and_fails_over_the_limit(store: str, raw_folder: RawFolder) -> None:
    rows = [raw_folder.row(f"{number}") for number in range(18)]
    other = raw_folder.row("other")
    rows += [{**rows[0], "id": "copy"}, {**other, "id": "1"}, raw_folder.row("away", "away.jpg")]
    given = ("--source", raw_folder.write(rows), "--set", "evaluation.benchmarks=[]", "--store", store)
    done = mantis("data", "prepare", "demo", "--set", "data.subsets=[]", *given)
    assert done.exit_code == 0, done.output
    assert line_of(done, "raw")[:9] == ["raw", "21", "19", "1", "duplicate,", "1", "image-missing", "1", "id-repeated"]
    assert "image-missing: no such file or member. Put the file below the folder of the rows." in done.stderr
    strict = mantis(
        "data", "prepare", "demo", "--set", "data.subsets=[]", *given, "--set", "data.max_dropped=0", "--json"
    )
    assert strict.exit_code == 1
    assert "raw: 1 of 21 rows cannot be used, 4.8% (1 duplicate, 1 id-repeated, 1 image-missing)" in strict.stderr
    assert json.loads(strict.stdout) == {
        "subsets": [
            {
                "name": "raw",
                "form": "json-list with rows of the form conversation",
                "rows": 21,
                "kept": 19,
                "dropped": {"duplicate": 1, "image-missing": 1},
                "repaired": {"id-repeated": 1},
            }
        ]
    }


def test_prepare_makes_the_mixture_that_training_takes_and_needs_no_benchmark(store: str) -> None:
    given = ("--set", "data.generated_conversations=40", "--set", "evaluation.benchmarks=[]", "--store", store)
    done = mantis("data", "prepare", "demo", "--name", "prepared", *given)
    assert done.exit_code == 0, done.output
    opened = open_store(store)
    records = {record.step: record.state for record in read_records(opened, "prepared")}
    assert records["assemble"] == "done"
    assert not {"train", "report"} & set(records)
    assert json.loads(opened.get("runs/prepared/summary.json"))["status"] == "FINISHED"
    again = mantis("data", "prepare", "demo", "--name", "prepared", *given, "--json")
    assert re.search(r"^assemble +result was already there$", again.stderr, re.MULTILINE)
    subsets = json.loads(again.stdout)["subsets"]
    assert [each["name"] for each in subsets] == ["demo-multi", "demo-single"]
    assert sum(each["rows"] for each in subsets) == 40
    for each in subsets:
        assert each["kept"] + sum(each["dropped"].values()) == each["rows"]
