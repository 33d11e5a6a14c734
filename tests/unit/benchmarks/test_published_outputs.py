"""Published outputs of other people's models give the published figures."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.published_outputs import SCIENCEQA_QUESTIONS, Compared, compare_all, main

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
        assert row.decided_differ == 0
        if row.model.startswith("test_sqa_llava"):
            assert row.ours is not None
            assert row.largest_gap < 0.01
        else:  # the authors drew an option for empty responses
            assert row.read == 249
            assert row.with_guess == pytest.approx(75.01, abs=0.01)
        assert row.with_draws == pytest.approx(row.published, abs=0.03)


@needs_outputs
def test_mmmu_and_mathvista_agree_where_their_code_decides_alone(rows: dict[tuple[str, str], Compared]) -> None:
    decided = {key: row for key, row in rows.items() if key[0] in ("MMMU", "MathVista")}
    assert len(decided) > 15
    assert all(row.decided_differ == 0 for row in decided.values())
    assert rows["MMMU", "LLaVA-1.5-13B"].ours == pytest.approx(36.56, abs=0.01)
    assert rows["MMMU", "Qwen-VL-7B-Chat"].ours == pytest.approx(34.33, abs=0.01)


def test_right_answers_of_scienceqa_come_from_the_file_of_questions(tmp_path: Path) -> None:
    outputs = tmp_path / "lupantech+ScienceQA/results/gpt3"
    outputs.mkdir(parents=True)
    said = {"1": "The answer is B.", "2": "The answer is A.", "3": ""}
    stored = {"acc": 66.7, "outputs": said, "results": {"1": 1, "2": 0, "3": 2}}
    (outputs / "run.json").write_text(json.dumps(stored))
    assert compare_all(tmp_path)[0].ours is None
    questions = tmp_path / SCIENCEQA_QUESTIONS
    questions.parent.mkdir(parents=True)
    texts = {
        "1": ("Which one?\nA. is a note\nA. one\nB. two", "B"),
        "2": ("Which one?\nA. one\nB. two\nC. three\nof two lines", "B"),
        "3": ("Which one?\nA. one\nB. two\nC. three\nD. four", "C"),
    }
    rows = [
        {"id": key, "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]}
        for key, (text, answer) in texts.items()
    ]
    questions.write_text(json.dumps(rows))
    found = compare_all(tmp_path)[0]
    assert (found.decided, found.decided_differ, found.read) == (2, 0, 1)
    assert found.ours == pytest.approx(100 / 3)
    assert found.with_guess == pytest.approx(100 / 3 * (1 + 1 / 4))
    assert found.with_draws == pytest.approx(200 / 3)  # the third draw is the right option


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
