import html
import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from components.reporting.collect.artifact_reader import Reader
from components.reporting.collect.collect_training import training_of
from components.reporting.collect.report_schema import Answer
from components.reporting.render.formatting import setup_rows
from components.reporting.step import headline_figures, report
from mantis.artifacts.manifest import Manifest, describe_files, read_manifest
from mantis.runs.records import State, read_record
from tests.fixtures.reporting import MakeStored, Stored, held_out_evaluation, put_judged_answers
from tests.helpers.paths import root_of

ADDRESS = "reports/demo-3f9a1c07"
HOSTILE = '<script>alert(1)</script><img src="https://example.com/x.png"> | [click](javascript:alert) `` ``` *x* &lt;'


def read(stored: Stored, name: str) -> str:
    return stored.run.store.get(f"{ADDRESS}/{name}").decode()


def made(stored: Stored, evaluations: list[Manifest] | None = None) -> tuple[str, str]:
    """Page and Markdown of the run."""
    report(stored.run, stored.evaluations if evaluations is None else evaluations)
    return read(stored, "report.html"), read(stored, "report.md")


class Page(HTMLParser):
    """Every tag with its attributes, the text of table cells, and what is never closed."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open and "title" not in self.open:
            self.cells[-1] += data.strip()


def test_the_report_lies_where_the_contract_says_and_is_reused(stored: Stored) -> None:
    manifest = report(stored.run, stored.evaluations)
    assert manifest.key.endswith(ADDRESS)
    assert {file.name for file in manifest.files} == {"report.html", "report.md", "summary.json"}
    assert set(manifest.inputs) == {"demo-multi", "demo-single"}
    page = read(stored, "report.html")
    assert report(stored.run, stored.evaluations) == manifest
    assert read(stored, "report.html") == page
    assert read_record(stored.run.store, stored.run.id, "report").state is State.REUSED


def test_other_evaluations_make_the_report_anew(stored: Stored) -> None:
    first = report(stored.run, stored.evaluations)
    second = report(stored.run, stored.evaluations[:1])
    assert second.fingerprint != first.fingerprint
    assert read_manifest(stored.run.store, ADDRESS) == second
    assert len(json.loads(read(stored, "summary.json"))["scores"]) == 4


def test_summary_has_exactly_the_keys_that_machines_read(stored: Stored) -> None:
    made(stored)
    summary = json.loads(read(stored, "summary.json"))
    assert list(summary) == ["schema_version", "run", "recipe", "fingerprints", "scores", "training", "seconds"]
    assert (summary["run"], summary["recipe"]) == ("demo-3f9a1c07", "demo")
    names = ["benchmark", "skill", "samples", "accuracy", "low", "high", "chance", "blind", "shuffled"]
    assert summary["scores"] == [{name: row[name] for name in names} for row in stored.scores]
    checkpoint = stored.artifacts["checkpoint"]
    names = ["steps", "first_loss", "last_loss", "samples_per_second", "goodput"]
    names += ["hardware", "ranks", "nodes", "gpus", "software", "device_hours"]
    assert summary["training"] == {name: checkpoint.summary[name] for name in names}
    assert summary["fingerprints"]["train"] == checkpoint.fingerprint
    assert set(summary["fingerprints"]) == {artifact.made_by.step for artifact in stored.artifacts.values()}
    assert summary["seconds"]["train"] == 261.2
    assert summary["seconds"]["prepare-demo-multi"] == 21.3  # reused: of the attempt that made it
    assert "report" not in summary["seconds"]


def test_the_rank_that_others_wait_for_is_named(stored: Stored) -> None:
    page, markdown = made(stored)
    assert "rank 0, 1.08 times the median rank's time for the same work" in html.unescape(page)
    assert "| Slowest rank | rank 0, 1.08 times the median rank's time for the same work |" in markdown


def test_the_setup_of_the_training_is_on_the_page(stored: Stored) -> None:
    page, markdown = made(stored)
    expected = {
        "Hardware": "8 × NVIDIA H200",
        "Ranks": "8 on 1 node",
        "Software": "Python 3.11.9, torch 2.10.0",
        "Precision": "fp32",
        "Batch size": "16 samples per step, over all ranks",
        "Samples per second": "164",
        "GPU-hours": "0.581",
    }
    for name, value in expected.items():
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page
        assert f"| {name} | {value} |" in markdown
    training = stored.run.recipe.training
    rate = f"{training.learning_rate:g}, {training.schedule.kind}, warm-up over"
    assert f'<th scope="row">Learning rate</th><td>{rate}' in page
    assert "Cost" not in markdown
    assert "held-out loss" not in markdown


def test_the_price_of_a_gpu_hour_makes_a_cost_and_another_report(stored: Stored) -> None:
    first = report(stored.run, stored.evaluations)
    cluster = stored.run.recipe.cluster.model_copy(update={"gpu_hour_price": 2.5})
    priced = replace(stored.run, recipe=stored.run.recipe.model_copy(update={"cluster": cluster}))
    assert report(priced, stored.evaluations).fingerprint != first.fingerprint
    assert "| Cost | 1.45, at 2.5 for each of the GPU-hours |" in read(stored, "report.md")
    assert json.loads(read(stored, "summary.json"))["training"]["cost"] == pytest.approx(2.5 * 0.581)


def test_the_held_out_loss_is_a_curve_and_names_the_best_step(stored: Stored) -> None:
    checkpoint = stored.artifacts["checkpoint"]
    losses = {"best_step": 1200, "best_held_out_loss": 1.234, "last_held_out_loss": 1.5}
    ended = {"held_out_samples": 500, "stopped_early": True}
    key = f"{checkpoint.key}/metrics.jsonl"
    rows = [json.loads(line) for line in stored.run.store.get(key).splitlines()]
    rows[3]["held_out_loss"] = 1.7
    stored.run.store.put(key, "".join(json.dumps(row) + "\n" for row in rows).encode())
    training = training_of(
        Reader(stored.run.store),
        checkpoint.model_copy(
            update={
                "summary": checkpoint.summary | losses | ended,
                "files": describe_files(stored.run.store, checkpoint.key),
            }
        ),
        stored.run.recipe,
    )
    rows_shown = dict(setup_rows(training))
    assert rows_shown["Lowest held-out loss"] == "1.23 after step 1,200, of 500 samples"
    assert rows_shown["Last held-out loss"] == "1.5; training ended there early"
    (curve,) = (curve for curve in training.curves if curve.name == "held_out_loss")
    assert curve.points == ((30.0, 1.7),)


def test_the_learning_rate_of_each_part_has_a_curve(stored: Stored) -> None:
    key = stored.key("checkpoint", "metrics.jsonl")
    rows = [json.loads(line) for line in stored.run.store.get(key).splitlines()]
    slower = [row | {"learning_rate_vision": row["learning_rate"] / 5} for row in rows]
    stored.run.store.put(key, "".join(json.dumps(row) + "\n" for row in slower).encode())
    for text in made(stored):
        assert "Learning rate of vision" in text
        assert "Learning rate of text" not in text


def test_the_numbers_of_the_page_are_those_of_the_scores(stored: Stored) -> None:
    page, markdown = made(stored)
    cells = Page(page).cells
    for row in stored.scores:
        begin = cells.index(row["label"] + row["benchmark"])
        interval = f"{100 * row['low']:.1f}–{100 * row['high']:.1f}"
        above = f"{100 * (row['accuracy'] - row['chance']):+.1f}"
        expected = [f"{100 * row['accuracy']:.1f}", interval, f"{100 * row['chance']:.1f}", above]
        assert cells[begin + 2 : begin + 6] == expected
        assert cells[begin + 6].startswith(f"{100 * row['blind']:.1f}p = ")
        assert cells[begin + 7].startswith(f"{100 * row['shuffled']:.1f}p = ")
        assert cells[begin + 8 : begin + 11] == [f"{100 * row['strict']:.1f}", str(row["unparsed"]), "500"]
        assert f"| {row['label']} | {row['benchmark']} | 500 | {expected[0]} | {interval} |" in markdown


def test_the_page_fetches_nothing_and_is_well_formed(stored: Stored) -> None:
    page, _ = made(stored)
    parsed = Page(page)
    assert parsed.open == []
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "xlink:href", "action"):
            if (tag, name) != ("a", "href"):
                assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    links = {attributes["href"] for tag, attributes in parsed.tags if tag == "a"}
    anchors = {link for link in links if link.startswith("#")}
    sections = {f"#{attributes['id']}" for tag, attributes in parsed.tags if tag == "section"}
    assert anchors == sections, "the list of contents names every section"
    folder = root_of(stored.run.store) / ADDRESS
    assert {(folder / link).resolve() for link in links - anchors} == {
        root_of(stored.run.store) / artifact.key / "manifest.json" for artifact in stored.artifacts.values()
    }
    assert all((folder / link).exists() for link in links - anchors)
    assert "url(" not in page
    assert "@import" not in page
    images = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 4 * (2 + 4 + 4 + 4) + 2


def test_hostile_text_stays_text(stored: Stored) -> None:
    gallery = json.loads(stored.run.store.get(stored.key("evaluate-demo-multi", "gallery.json")))
    for name in ("question", "answer", "response", "label", "id"):
        gallery[0][name] = HOSTILE
    gallery[0]["options"] = [HOSTILE]
    gallery[0]["images"] = ["https://example.com/a.png", "data:text/html;base64,PHNjcmlwdD4="]
    stored.put("evaluate-demo-multi", "gallery.json", gallery)
    scores = [{**row, "label": HOSTILE} for row in stored.scores if row["benchmark"] == "demo-multi"]
    stored.put("evaluate-demo-multi", "scores.json", scores)
    page, markdown = made(stored)
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not [attributes for tag, attributes in parsed.tags if tag == "img" and "example" in attributes["src"]]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "images that are not inline are left out" in page
    prose = without_code(markdown)
    assert "<" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert all(line.endswith(" |") for line in prose.splitlines() if line.startswith("|"))


def without_code(markdown: str) -> str:
    return re.sub(r"^(`{3,})[^`\n]*\n.*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def test_markdown_is_the_twin_without_html(stored: Stored) -> None:
    page, markdown = made(stored)
    for heading in re.findall(r"<h2>(.*?)</h2>", page):
        assert f"## {heading}" in markdown
    assert "<" not in without_code(markdown)
    assert "name: demo" in markdown
    columns = [line.count("|") for line in markdown.splitlines() if line.startswith("| Compare two images")]
    assert columns == [12]


def test_fifteen_benchmarks_with_large_galleries_stay_small(stored: Stored) -> None:
    answer = json.loads(stored.run.store.get(stored.key("evaluate-demo-multi", "gallery.json")))[0]
    row = stored.scores[0]
    image = "data:image/jpeg;base64," + "A" * 12_000
    scores: list[dict[str, Any]] = []
    gallery: list[dict[str, Any]] = []
    for number in range(100):
        skill = f"skill-{number:03d}"
        scores.append({**row, "skill": skill, "label": skill})
        for correct in (True, True, False, False):
            shown = {"skill": skill, "label": skill, "images": [image] * 8, "correct": correct, "response": "x" * 5000}
            gallery.append({**answer, **shown, "id": f"{skill}-{len(gallery)}"})
    stored.put("evaluate-demo-multi", "scores.json", scores)
    stored.put("evaluate-demo-multi", "gallery.json", gallery)
    page, markdown = made(stored)
    assert len(page.encode()) < 5_000_000
    assert len(markdown) < 400_000
    assert len(re.findall("<article", page)) >= 30
    assert re.search(r"gallery\.json of the evaluations holds \d+ more", page)


def test_a_reused_step_is_told_from_one_that_worked(stored: Stored) -> None:
    page, _ = made(stored)
    times = page[page.index("<h2>Time by step") : page.index("<h3>Training time")]
    rows = {name: row for row, name in re.findall(r"(<tr><td[^>]*>(.*?)</td>.*)", times)}
    assert "result reused" in rows["prepare-demo-multi"]
    assert 'class="reused"' in rows["prepare-demo-multi"]
    assert 'class="bar done"' in rows["train"]
    assert "done, attempt 2" in rows["train"]
    assert "report" not in rows


def test_data_and_ledger(stored: Stored) -> None:
    page, _ = made(stored)
    cells = Page(page).cells
    begin = cells.index("demo-multi")
    assert cells[begin : begin + 9] == ["demo-multi", "coref", "1,600", "1,598", "2", "1", "1,597", "4,791", "106,999"]
    begin = cells.index("All")
    assert cells[begin : begin + 9] == ["All", "", "2,000", "1,998", "2", "1", "1,996", "5,190", "133,732"]
    begin = cells.index("image-missingdropped")
    assert cells[begin + 1 : begin + 4] == ["demo-multi", "prepare-demo-multi", "2"]
    assert "images/00003-2.jpg" in cells[begin + 4]


def test_benchmark_images_in_training_and_licences(stored: Stored) -> None:
    page, markdown = made(stored)
    cells = Page(page).cells
    begin = cells.index("7,000")
    assert cells[begin - 1 : begin + 5] == ["demo-multi", "7,000", "1", "1", "1", "0"]
    for text in (page, markdown.replace("\\_", "_")):
        assert "images/a.jpg is images/17.jpg of demo-multi, row 17" in text
        assert "images/b.jpg resembles (11 of 256 bits differ) images/17.jpg" in text
        assert "CC-BY-NC-4.0" in text
        assert "Research &lt;only&gt;." in text
        assert "commercial" in text


def test_lineage_names_every_artifact_and_the_commands(stored: Stored) -> None:
    page, markdown = made(stored)
    for artifact in stored.artifacts.values():
        assert artifact.fingerprint in page
        assert artifact.fingerprint in markdown
    for evaluation in stored.evaluations:
        assert f"mantis lineage {evaluation.key}" in page
    assert f"{stored.evaluations[0].key}#compare-0000" in page


@pytest.mark.parametrize(
    ("artifact", "file", "said"),
    [
        ("evaluate-demo-multi", "gallery.json", "gallery.json is missing"),
        ("evaluate-demo-multi", "scores.json", "scores.json is missing"),
        ("checkpoint", "metrics.jsonl", "metrics.jsonl is missing"),
        ("mixture", "ledger.parquet", "ledger.parquet is missing"),
        ("mixture", "subsets.json", "subsets.json is missing"),
        ("demo-multi", "manifest.json", "is missing: it is an input of"),
        ("mixture", "manifest.json", "contains no mixture"),
        ("model", "manifest.json", "contains no checkpoint"),
    ],
)
def test_what_is_missing_is_said(stored: Stored, artifact: str, file: str, said: str) -> None:
    stored.run.store.delete(stored.key(artifact, file))
    for text in made(stored):
        assert said in text.replace("\\_", "_")


@pytest.mark.parametrize(
    ("artifact", "file", "content", "said"),
    [
        ("evaluate-demo-multi", "scores.json", b"[{", "scores.json is not a JSON list of objects"),
        ("evaluate-demo-multi", "scores.json", b'[{"skill": "x"}]', "scores.json, row 0: benchmark: Field required"),
        ("evaluate-demo-multi", "gallery.json", b"{}", "gallery.json is not a JSON list"),
        ("checkpoint", "metrics.jsonl", b"{\n", "metrics.jsonl does not have one JSON object per line"),
        ("checkpoint", "metrics.jsonl", b'{"step": 1}\n', "metrics.jsonl has no loss"),
        ("demo-multi", "ledger.parquet", b"PAR1", "ledger.parquet is not a Parquet file"),
        ("mixture", "subsets.json", b'[{"name": "x", "licence": {"name": 1}}]', "subsets.json, row 0"),
        ("model", "manifest.json", b"{}", "is no manifest of schema version 1"),
    ],
)
def test_what_is_broken_is_said(stored: Stored, artifact: str, file: str, content: bytes, said: str) -> None:
    stored.run.store.put(stored.key(artifact, file), content)
    page, _ = made(stored)
    assert said in page


def test_an_index_that_is_gone_leaves_the_prepared_rows(stored: Stored) -> None:
    prefix = stored.key("mixture", "index.lance")
    for entry in list(stored.run.store.list(prefix)):
        stored.run.store.delete(entry.key)
    page, _ = made(stored)
    assert "index.lance cannot be read" in page
    begin = Page(page).cells.index("demo-multi")
    assert Page(page).cells[begin : begin + 9] == ["demo-multi", "coref", "1,600", "1,598", "2", "1", "–", "–", "–"]


def test_a_run_without_evaluations_or_records(stored: Stored) -> None:
    for entry in list(stored.run.store.list(stored.run.key("steps"))):
        stored.run.store.delete(entry.key)
    page, markdown = made(stored, [])
    for text in (page, markdown):
        assert "The run has no scores" in text
        assert "This run has no evaluation." in text
        assert "The run has no records of its steps." in text
    summary = json.loads(read(stored, "summary.json"))
    assert summary["scores"] == []
    assert summary["training"]["steps"] is None


def test_a_run_that_learned_nothing_says_so(make_stored: MakeStored) -> None:
    accuracies = {"compare": 0.51, "coref": 0.27, "temporal": 0.23, "reason": 0.19, "single": 0.26}
    page, markdown = made(make_stored(accuracies=accuracies))
    for text in (page, markdown):
        assert "None of the 5 skills is above chance: the model is no better than guessing." in text
    assert "0 of 5" in page


def test_fifteen_benchmarks_take_seconds_and_fit(fifteen_benchmarks: Stored) -> None:
    began = time.process_time()  # of this process: the machine may be busy with others
    page, markdown = made(fifteen_benchmarks, fifteen_benchmarks.evaluations)
    assert time.process_time() - began < 10
    assert len(page.encode()) < 5_000_000
    assert len(markdown) < 400_000
    for text in (page, markdown):
        for word in ("above", "below", "undecided", "not comparable", "too wide", "Another split.", "no paper figure"):
            assert word in text
        assert "Mantis-CLIP" in text
        assert "VILA-8B" in text
    assert "150 of 150" in page  # skills: the rows of whole benchmarks are not counted
    assert page.count("Not parsed") > 15
    assert "3,000" in page
    summary = json.loads(read(fifteen_benchmarks, "summary.json"))
    assert sum(row["skill"] == "overall" for row in summary["scores"]) == 15


def test_an_answer_of_the_first_schema_version_is_read() -> None:
    former = {"benchmark": "b", "skill": "s", "id": "1", "question": "?", "answer": "A", "response": "B"}
    assert Answer.model_validate({**former, "correct": False, "understood": False}).parsed is False


def test_held_out_rows_have_a_section_of_their_own(stored: Stored) -> None:
    before = made(stored)
    assert "Held-out rows" not in "".join(before)
    assert "held_out" not in json.loads(read(stored, "summary.json"))
    held_out = held_out_evaluation(stored.run, stored.artifacts["model"])
    page, markdown = made(stored, [*stored.evaluations, held_out])
    cells = Page(page).cells
    place = cells.index("my-cats")
    assert cells[place : place + 6] == ["my-cats", "40", "1", "1.25", "37.5", "62.5"]
    assert "| All | 40 | 1 | 1.25 | 37.5 | 62.5 |" in markdown
    assert cells.count("my-cats") == 1  # no row among the skills, whose accuracy is compared with chance
    assert json.loads(read(stored, "summary.json"))["held_out"][1]["token_f1"] == 0.625


def test_every_table_has_a_caption_scopes_and_names_on_its_cells(fifteen_benchmarks: Stored) -> None:
    held_out = held_out_evaluation(fifteen_benchmarks.run, fifteen_benchmarks.artifacts["model"])
    page, _ = made(fifteen_benchmarks, [*fifteen_benchmarks.evaluations, held_out])
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert len(tables) >= 10
    captions = [re.findall(r'<caption class="unseen">(.+?)</caption>', table) for table in tables]
    assert all(len(caption) == 1 for caption in captions)
    assert len({caption for (caption,) in captions}) == len(tables)
    headers = re.findall(r"<th\b[^>]*>", page)
    assert all('scope="col"' in header or 'scope="row"' in header for header in headers)
    assert '<td data-name="Token F1" class="n">62.5</td>' in page
    assert "&amp;lt;" not in page, "nothing is escaped twice"


def test_the_setup_stands_before_the_scores(stored: Stored) -> None:
    page, _ = made(stored)
    assert page.index('id="setup"') < page.index('id="skills"') < page.index('id="training"')
    assert '<th scope="row">Model</th><td>llava-clip from scratch</td>' in page


def test_the_answers_lie_beside_the_report_in_parts(stored: Stored) -> None:
    put_judged_answers(stored, change={"question": HOSTILE})
    manifest = report(stored.run, stored.evaluations)
    parts = [f"answers/demo-multi-0000{number}.js" for number in (0, 1)] + ["answers/demo-single-00000.js"]
    assert {file.name for file in manifest.files} >= {*parts, "answers.html"}
    assert 'href="answers.html">all 360 judged answers</a>' in read(stored, "report.html")
    rows = []
    for part in parts:
        text = read(stored, part)
        assert (text[:14], text[-3:]) == ("mantisAnswers(", ");\n")
        content = json.loads(text[14:-3])
        assert content["file"] == part
        rows += content["rows"]
    assert len(rows) == 360
    assert {row[2] for row in rows} == {"right", "wrong", "not parsed"}
    assert {row[3] for row in rows} == {HOSTILE}
    page = read(stored, "answers.html")
    parsed = Page(page)
    assert [attributes for tag, attributes in parsed.tags if tag == "script"] == [
        {"type": "application/json", "id": "index"},
        {},
    ]
    index = json.loads(re.search(r'id="index">(.*?)</script>', page)[1])
    assert [chunk["file"] for chunk in index["chunks"]] == parts
    assert sum(count for chunk in index["chunks"] for _, _, count in chunk["groups"]) == 360


def test_answers_of_an_earlier_version_are_named(stored: Stored) -> None:
    put_judged_answers(stored, change={"correct": "perhaps"})
    page, _ = made(stored)
    assert "Its answers cannot be browsed." in page
    assert "answers.html" not in page


def test_the_report_names_the_kernel_of_attention(stored: Stored) -> None:
    page, text = made(stored)
    assert "Attention: varlen kernel of torch 2.13.0." in page
    assert re.search(r"\| Attention +\| +varlen kernel of torch 2\.13\.0 \|", text)


def test_the_figures_of_a_run_name_their_benchmark(stored: Stored) -> None:
    scores = {"samples": 40, "accuracy": 0.5, "compare/accuracy": 0.25, "compare/low": 0.1, "note": "x"}
    evaluations = [each.model_copy(update={"summary": scores}) for each in stored.evaluations]
    figures = headline_figures(stored.run, evaluations)
    of_scores = {name: value for name, value in figures.items() if not name.startswith("train/")}
    assert of_scores == {
        f"{benchmark}/{name}": scores[name]
        for benchmark in ("demo-multi", "demo-single")
        for name in ("accuracy", "compare/accuracy")
    }
    record = read_record(stored.run.store, stored.run.id, "train")
    assert record
    training, summary = stored.run.recipe.training, record.summary
    assert figures["train/learning_rate"] == training.learning_rate
    assert figures["train/last_loss"] == summary["last_loss"]
    assert figures["train/steps"] == summary["steps"]


def test_the_figures_of_an_evaluation_alone_have_no_training(stored: Stored) -> None:
    figures = headline_figures(replace(stored.run, id="without-training"), stored.evaluations)
    assert not [name for name in figures if name.startswith("train/")]
