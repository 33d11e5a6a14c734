"""The reference pages name everything that the code has: a new metric, variable, field or reason needs its line."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.rows import GPU_ROWS, ROWS
from components.evaluation.benchmarks.benchmark_catalog import Benchmark, known_benchmarks, load_benchmark
from components.evaluation.benchmarks.prompts import make_prompt
from components.evaluation.benchmarks.samples import parse_row
from components.evaluation.profiles.profile_catalog import profiles
from components.evaluation.profiles.prompt_template import Prompt
from components.training.callbacks.metric_rows import MetricRows
from components.training.monitoring.goodput import Cause
from components.training.monitoring.step_metrics import StepFigures
from components.training.monitoring.stragglers import Look
from components.training.sizing import estimate
from mantis.artifacts.checkpoint import Commit
from mantis.artifacts.layout import RESPONSES, RUN, ArtifactKind
from mantis.artifacts.responses import Response
from mantis.artifacts.scores import Score
from mantis.tracking.score_metrics import TABLE_COLUMNS
from pipelines.cli.reference_pages.benchmark_page import benchmark_page

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
CODE = ("mantis", "components", "pipelines", "benchmarks", "tests")
VARIABLE = re.compile(r"(MANTIS|MLFLOW|AWS|HF|KF|KFP|DS|OMP|TORCH|TORCHELASTIC|XDG)_[A-Z_]*[A-Z]|TMPDIR|KUBECONFIG")


def terms(page: str) -> set[str]:
    """Everything that stands in backticks on the page."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / page).read_text(encoding="utf-8")))


def constants(*folders: str) -> Iterator[str]:
    """Every string constant of the code in `folders`."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_the_environment_page_has_every_variable() -> None:
    used = {text for text in constants(*CODE) if VARIABLE.fullmatch(text)}
    assert used > {"MANTIS_STORE", "AWS_REGION"}
    assert used - terms("reference/environment.md") == set()


def test_the_environment_page_has_no_variable_that_nothing_reads() -> None:
    named = {term for term in terms("reference/environment.md") if term.startswith("MANTIS_")}
    places = [ROOT / "Makefile", ROOT / "docker/Dockerfile", *(ROOT / "manifests").rglob("*.yaml")]
    texts = [path.read_text(encoding="utf-8") for path in places] + list(constants(*CODE))
    assert {name for name in named if not any(name in text for text in texts)} == set()


def test_the_metrics_page_has_every_column_of_a_row() -> None:
    recorder = MetricRows(every=1, steps=1, peak_flops=1.0, device=torch.device("cpu"))
    numbers: dict[str, Any] = {field.name: 1 for field in fields(StepFigures)}
    row = recorder.add(1, StepFigures(**(numbers | {"part_rates": {"<part>": 1}})))
    assert row is not None
    assert {name for name in row if name != "step"} - terms("reference/metrics.md") == set()


def test_the_metrics_page_has_what_the_ranks_are_compared_by() -> None:
    known = terms("reference/metrics.md")
    assert {"slowest_rank", "slowdown", "waiting_rank", "data_share_of_waiting_rank"} <= known
    assert len(fields(Look)) == 4


def test_the_metrics_page_has_every_cause_and_figure() -> None:
    assert {cause.value for cause in Cause} - terms("reference/metrics.md") == set()
    assert set(TABLE_COLUMNS) - terms("reference/metrics.md") == set()


def test_the_artifacts_page_has_every_kind_and_address() -> None:
    text = (DOCS / "reference/artifacts.md").read_text(encoding="utf-8")
    kinds = [kind.value for kind in ArtifactKind if f"| {kind.value} |" not in text]
    assert not kinds, f"Kinds without a row in docs/reference/artifacts.md: {', '.join(kinds)}"
    patterns = [pattern for kind in ArtifactKind for pattern in kind.patterns] + [RESPONSES, RUN]
    assert [pattern.text for pattern in patterns if f"| `{pattern.text}/` |" not in text] == []


@pytest.mark.parametrize(
    "names",
    [
        {field.name for field in fields(Response)},
        set(Score.model_fields),
        set(Commit.model_fields),
    ],
)
def test_the_artifacts_page_has_every_field(names: set[str]) -> None:
    assert names - terms("reference/artifacts.md") == set()


def test_the_benchmark_page_has_every_field() -> None:
    # `name` is the name of the file, `stored` a revision in the store; `profile` and `family` are those of the recipe.
    fields_of_files = set(Benchmark.model_fields) - {"name", "stored", "profile", "family"} | set(Prompt.model_fields)
    assert fields_of_files - terms("how-to/add-a-benchmark.md") == set()


def test_the_data_page_has_every_reason_of_the_ledger() -> None:
    reasons = set()
    for folder in ("components/data", "mantis/images"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("RowRejected", "RowRepaired"):
                    given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "reason")]
                    reasons |= {one.value for one in given if isinstance(one, ast.Constant)}
    assert len(reasons) > 20
    assert reasons - terms("how-to/bring-your-data.md") == set()


def test_the_sizing_table_is_what_the_estimates_give() -> None:
    lines = (DOCS / "reference/sizing.md").read_text(encoding="utf-8").splitlines()
    for name, shape in estimate.shapes().items():
        small, large = (estimate.needs(shape, memory=memory, ranks=16, zero_stage=3) for memory in (4e10, 8e10))
        stored = estimate.checkpoint_bytes(shape)
        seconds = estimate.step_seconds(shape, ranks=16, peak=3.12e14, batch=128)
        upload = estimate.upload_bandwidth(shape, ranks=16, peak=3.12e14, batch=128, every=250)
        cells = [
            name,
            f"{small.states / 1e9:.1f} GB",
            f"{small.per_token / 1e3:.0f} KB",
            f"{small.budget:,}",
            f"{large.budget:,}",
            f"{stored / 1e9:.0f} GB",
            f"{2 * stored / 1e9:.0f} GB",
            f"{seconds:.1f} s",
            f"{upload / 1e6:,.0f} MB/s",
        ]
        assert any(line.startswith(f"| {' | '.join(cells)} |") for line in lines), cells


def test_the_architecture_page_is_short() -> None:
    assert len((DOCS / "architecture.md").read_text(encoding="utf-8").split()) <= 900


def test_the_decisions_are_all_listed() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "decisions/README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (DOCS / "decisions").glob("*.md")} - {"README.md"}


def test_the_speed_page_has_every_row_with_its_goal() -> None:
    lines = (DOCS / "reference/speed.md").read_text(encoding="utf-8").splitlines()
    goals = {line.split("`")[1]: line.split("|")[3].strip() for line in lines if line.startswith("| `")}
    for name, (module, _) in (ROWS | GPU_ROWS).items():
        names = {node.value for node in ast.walk(ast.parse(_source(module))) if isinstance(node, ast.Constant)}
        goal = next(text for pattern, text in goals.items() if fnmatch(name, pattern))
        assert goal.replace("≥ ", ">=").replace("≤ ", "<=").replace("< ", "<") in names, name


def _source(module: str) -> str:
    return (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def test_the_benchmarks_page_has_every_prompt_rule_and_chance() -> None:
    page = benchmark_page()
    assert all(text in page for profile in profiles().values() for text in profile.differs)
    for name in known_benchmarks():
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        assert "| chance |" in section
        assert "| average |" in section
        for profile in profiles():
            benchmark = load_benchmark(name, profile=profile)
            assert f"`{profile}`" in section
            assert f"[{benchmark.metric}](#rule-{benchmark.metric})" in section
            if benchmark.resolved.name == profile:
                assert make_prompt(parse_row(benchmark.example or {}, 0, benchmark), benchmark)[0] in section
        assert all(text in section for text in load_benchmark(name).differs)
