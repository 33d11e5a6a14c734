"""Published outputs of other people's models give the published figures."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.published_outputs import Compared, compare_all, main

REPOSITORIES = os.environ.get("MANTIS_OFFICIAL_REPOS", "")
needs_outputs = pytest.mark.skipif(
    not REPOSITORIES, reason="MANTIS_OFFICIAL_REPOS names no folder with published outputs"
)


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Compared]:
    return {(row.benchmark, row.model): row for row in compare_all(Path(REPOSITORIES))}


@needs_outputs
def test_blink_gives_the_published_figures(rows: dict[tuple[str, str], Compared]) -> None:
    figures = {"Mantis-Idefics2": 49.05, "Mantis-CLIP": 47.06, "Mantis-SigLIP": 46.35, "Idefics2": 45.18}
    for model, published in figures.items():
        row = rows["BLINK", model]
        assert row.published == published
        assert row.largest_gap < 0.05
        assert row.decided_differ == row.read_differ == 0
    assert all(row.decided_differ == 0 for (benchmark, _), row in rows.items() if benchmark == "BLINK")


@needs_outputs
def test_scienceqa_reads_what_its_authors_and_llava_read(rows: dict[tuple[str, str], Compared]) -> None:
    outputs = [row for (benchmark, _), row in rows.items() if benchmark == "ScienceQA"]
    assert len(outputs) == 3
    for row in outputs:
        if row.model.startswith("test_sqa_llava"):
            assert row.largest_gap < 0.1
        else:  # the authors drew an option for empty responses
            assert (row.decided_differ, row.read) == (0, 249)


@needs_outputs
def test_mmmu_and_mathvista_agree_where_their_code_decides_alone(rows: dict[tuple[str, str], Compared]) -> None:
    decided = {key: row for key, row in rows.items() if key[0] in ("MMMU", "MathVista")}
    assert len(decided) > 15
    assert all(row.decided_differ == 0 for row in decided.values())
    assert rows["MMMU", "LLaVA-1.5-13B"].ours == pytest.approx(36.56, abs=0.01)
    assert rows["MMMU", "Qwen-VL-7B-Chat"].ours == pytest.approx(34.33, abs=0.01)


def test_outputs_are_compared_response_by_response(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "MMMU-Benchmark+MMMU/mmmu/example_outputs"
    said = {"1": "(B)", "2": "no idea", "3": "so 42.5"}
    for name in ("llava1.5_13b", "qwen_vl"):
        (folder / name / "Math").mkdir(parents=True)
        outputs = [
            {"id": key, "response": text, "question_type": "short-answer" if key == "3" else "multiple-choice",
             "index2ans": {"A": "one", "B": "two"}}
            for key, text in said.items()
        ]  # fmt: skip
        (folder / name / "Math/output.json").write_text(json.dumps(outputs))
        (folder / name / "total_val_output.json").write_text(json.dumps({"1": "B", "2": "A", "3": "42.5"}))
    answers = {key: {"ground_truth": right} for key, right in {"1": "B", "2": "A", "3": "42.5"}.items()}
    (folder.parent / "answer_dict_val.json").write_text(json.dumps(answers))
    assert main([str(tmp_path), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["published"], first["ours"], first["with_guess"]) == (
        100,
        pytest.approx(200 / 3),
        pytest.approx(250 / 3),
    )
    assert (first["decided"], first["decided_differ"], first["read"], first["read_differ"]) == (2, 0, 1, 1)
    assert main([str(tmp_path / "nothing")]) == 1
