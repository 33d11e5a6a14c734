import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from components.data.step import assemble, prepare
from mantis.runs.records import read_record, read_records
from mantis.showing.shown_data import ShownData, ShownRow, ShownTokens, TokenPiece
from mantis.store.opening import open_store
from mantis.synthetic import write_demo_data
from pipelines.cli.data_text import show_found
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


@pytest.mark.parametrize("rows", [True, False])
def test_no_control_character_of_a_source_reaches_the_terminal(rows: bool, store: str, raw_folder: RawFolder) -> None:
    raw_folder.write("{}", "\x1b]0;evil\x07\x9b31m.json")
    if rows:
        raw_folder.write([raw_folder.row("1")])
        raw_folder.write("[]", "\x1b[31mbad.json")
    done = mantis("data", "list", "--source", raw_folder.folder, "--store", store)
    assert done.exit_code == (0 if rows else 1), done.output
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.output)
    assert ("[U+001B][31mbad.json" if rows else "[U+001B]]0;evil[U+0007][U+009B]31m.json") in done.output


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


@pytest.fixture
def demo_rows(tmp_path: Path) -> Path:
    """Twelve rows of the demo. Row 2 has an image that is not there."""
    raw = tmp_path / "raw"
    write_demo_data(raw, seed=0, conversations=20, samples_per_skill=1, workers=1)
    rows = json.loads((raw / "demo-multi" / "train.json").read_text())[:12]
    rows[2]["images"][0] = "away.jpg"
    (raw / "demo-multi" / "train.json").write_text(json.dumps(rows))
    return raw


def test_show_gives_a_row_as_json(demo_rows: Path, store: str) -> None:
    done = mantis("data", "show", demo_rows / "demo-multi", "--row", 0, "--row", 2, "--store", store, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"kind", "name", "facts", "notes", "step", "rows", "reasons", "plots"}
    assert (found["kind"], found["step"], found["facts"]["samples"]) == ("source", None, 11)
    kept, refused = found["rows"]
    assert set(kept) == {
        "subset", "row", "position", "id", "dropped", "findings", "system", "turns", "images", "images_left_out",
        "tokens", "raw", "weight",
    }  # fmt: skip
    assert set(kept["tokens"]) == {"count", "targets", "whole", "pieces"}
    assert set(kept["tokens"]["pieces"][0]) == {"ids", "text", "image", "learned"}
    assert set(kept["turns"][0]) == {"role", "content", "learned"}
    assert set(kept["images"][0]) == {"path", "width", "height", "tokens", "problem"}
    assert sum(len(piece["ids"]) for piece in kept["tokens"]["pieces"]) == kept["tokens"]["count"]
    assert (refused["dropped"], refused["tokens"]) == (True, None)
    assert set(refused["findings"][0]) == {"action", "reason", "value", "threshold", "meaning", "remedy"}
    assert refused["findings"][0]["reason"] == "image-missing"
    assert [bar["count"] for plot in found["plots"] if "Dropped" in plot["title"] for bar in plot["bars"]] == [1]


def test_show_prints_the_learned_tokens_and_the_remedy(demo_rows: Path, store: str) -> None:
    asked = ("data", "show", demo_rows / "demo-multi" / "train.json", "--store", store)
    kept = mantis(*asked, "--row", 0).stdout
    answers = [
        turn["content"] for turn in json.loads((demo_rows / "demo-multi" / "train.json").read_text())[0]["conversation"]
    ]
    for answer in answers[1::2]:
        assert f"⟦{answer}<|end_of_text|>⟧" in kept
    assert "Tokens per sample (samples)" in kept
    refused = mantis(*asked, "--row", 2).stdout
    assert "dropped: the model sees nothing of this row" in refused
    assert "Put the file below the folder of the rows." in refused


@pytest.mark.parametrize("name", ["a file.json", "50%#1?.json"])
def test_show_takes_a_file_by_its_path_or_its_url(tmp_path: Path, store: str, name: str) -> None:
    path = tmp_path / name
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    path.write_text(json.dumps([{"id": "one", "conversation": turns}]))
    for what in (str(path), path.as_uri()):
        done = mantis("data", "show", what, "--store", store, "--json")
        assert done.exit_code == 0, done.output
        assert [row["id"] for row in json.loads(done.stdout)["rows"]] == ["one"]


def test_show_colours_the_learned_tokens_of_a_terminal() -> None:
    pieces = (
        TokenPiece(ids=(1,), text="What?\n", learned=False),
        TokenPiece(ids=(2,), text="\x1b[2Jred", learned=True),
        TokenPiece(ids=(3, 3), text="image 1: 2 tokens", image=1, learned=False),
    )
    tokens = ShownTokens(count=4, targets=1, whole=4, pieces=pieces)
    row = ShownRow(subset="s", row=0, id="evil\x1b]0;title\x07", tokens=tokens)
    data = ShownData(kind="source", name="x", facts={}, rows=(row,), reasons=(), plots=())
    screen = Console(force_terminal=True, color_system="standard", file=io.StringIO(), highlight=False, _environ={})
    show_found(data, to=screen)
    assert isinstance(screen.file, io.StringIO)
    printed = screen.file.getvalue()
    assert "\x1b[1;32m[U+001B][2Jred\x1b[0m" in printed
    assert "\x1b[35m[image 1: 2 tokens]\x1b[0m" in printed
    assert "evil[U+001B]]0;title[U+0007]" in printed
    assert "⟦" not in printed


def test_show_writes_one_page(demo_rows: Path, store: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = mantis("data", "show", demo_rows / "demo-multi", "--html", page, "--store", store)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"wrote {page}\n")
    assert page.read_text().count("data:image/jpeg;base64,") >= 5
    unwritable = mantis(
        "data", "show", demo_rows / "demo-multi", "--html", tmp_path / "no" / "x.html", "--store", store
    )
    assert (unwritable.exit_code, "--html" in unwritable.stderr) == (1, True)


def test_show_finds_a_prepared_set_by_its_subset_or_its_key(demo_rows: Path, store: str) -> None:
    overrides = {"data.source": str(demo_rows), "data.subsets": "[]", "data.max_dropped": "1"}
    dataset = prepare(preflight("demo", overrides, "", store), "demo-multi")
    for name in ("demo-multi", dataset.key, open_store(store).uri(dataset.key)):
        done = mantis("data", "show", name, "--row", 2, "--store", store, "--json")
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert (found["kind"], found["name"]) == ("dataset", dataset.key)
        assert [finding["reason"] for finding in found["rows"][0]["findings"]] == ["image-missing"]


def test_show_of_a_step_has_its_micro_steps(demo_rows: Path, store: str) -> None:
    overrides = {
        "data.source": str(demo_rows),
        "data.subsets": "[]",
        "data.max_dropped": "1",
        "training.token_budget": "128",
        "evaluation.samples_per_skill": "1",
    }
    run = preflight("demo", overrides, "", store)
    early = mantis("data", "show", run.id, "--store", store)
    assert (early.exit_code, "has no mixture yet" in early.stderr) == (1, True)
    mixture = assemble(run, [prepare(run, "demo-multi"), prepare(run, "demo-single")])
    done = mantis("data", "show", run.id, "--step", 2, "--store", store, "--json")
    assert done.exit_code == 0, done.output
    step = json.loads(done.stdout)["step"]
    assert set(step) == {
        "step", "steps", "samples", "ranks", "token_budget", "patch_budget", "idle", "micro_steps",
    }  # fmt: skip
    for part in step["micro_steps"]:
        assert set(part) == {"rank", "number", "samples", "tokens", "patches"}
        assert part["tokens"] == sum(sample["tokens"] for sample in part["samples"]) <= 128
    assert (
        sum(len(part["samples"]) for part in step["micro_steps"]) == step["samples"] == 14
    )  # 15 samples, twice, in steps of 16
    text = mantis("data", "show", run.id, "--step", 2, "--store", store).stdout
    assert f"Step 2 of {step['steps']}" in text
    assert "A micro-step holds at most 128 tokens" in text
    reasons = {each["reason"] for each in json.loads(done.stdout)["reasons"]}
    assert "image-missing" in reasons
    assert mixture.summary["samples"] == json.loads(done.stdout)["facts"]["samples of an epoch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file://{raw}/nothing-there"], "does not exist"),
        (["nothing-there"], "is neither a folder, a file, a run nor a prepared set"),
        (["{raw}"], "Choose one with --subset: demo-multi, demo-single"),
        (["{raw}", "--subset", "demo-multy"], "Did you mean demo-multi?"),
        (["{raw}/demo-multi", "--row", "99"], "--row 99: the source has no such row"),
        (["{raw}/demo-multi", "--recipe", "demmo"], "Did you mean demo?"),
        (["some-run", "--step", "1"], "some-run"),
        (["some-run", "--step", "1", "--row", "1"], "--row names a row of a source or a prepared set"),
    ],
)
def test_show_explains_what_it_cannot_show(demo_rows: Path, store: str, arguments: list[str], message: str) -> None:
    done = mantis("data", "show", *(each.format(raw=demo_rows) for each in arguments), "--store", store)
    assert done.exit_code == 1, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
