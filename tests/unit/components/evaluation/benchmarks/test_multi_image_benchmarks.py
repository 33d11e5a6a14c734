"""The benchmarks of 2024 and 2025, from files in their published layout. The schemas are those of the hub."""

import base64
import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark, parse_benchmark
from components.evaluation.readers.benchmark_reader import Samples, read_benchmark
from components.evaluation.scoring.score_response import score_response
from components.evaluation.scoring.targets import Target
from mantis.errors import EvaluationError, InputError
from tests.fixtures.evaluation import WriteParquet
from tests.unit.components.evaluation.benchmarks.test_benchmark_reader import rows_of
from tests.unit.components.evaluation.readers.test_mvbench_reader import number_of, video  # noqa: F401

OFFICIAL = Path(__file__).parents[1] / "scoring/metrics/official_multi_image.json"
OPTIONS = ("a red car", "the blue car", "neither of them", "both")
Read = Callable[..., Samples]


@pytest.fixture
def read(tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet) -> Read:
    def read(name: str, **more: Any) -> Samples:
        file, rows = rows_of(name, photographs)
        write_parquet(tmp_path / name / file, rows)
        (tmp_path / "spool").mkdir(exist_ok=True)
        return read_benchmark(tmp_path / name, load_benchmark(name), spool=tmp_path / "spool", **more)

    return read


def target_of(row: dict[str, Any]) -> Target:
    if row["metric"] == "llava-interleave":
        return Target(kind="short", answers=(row["answer"],), details={"question_type": row["kind"]})
    if row["metric"] == "vlm2-bench":
        details = {"category": row["category"], "images": row.get("images", 2)}
        return Target(kind="short", answers=(row["answer"],), details=details)
    return Target(kind="multiple-choice", answers=(row["answer"],), options=OPTIONS)


@pytest.mark.parametrize("metric", ["llava-interleave", "mmmu-pro", "seed-bench-2", "video-mme", "vlm2-bench"])
def test_scores_are_those_of_the_official_code(metric: str) -> None:
    """The file holds what the code that each metric names gave for these responses."""
    rows = [row for row in json.loads(OFFICIAL.read_text()) if row["metric"] == metric]
    assert len({row["response"] for row in rows}) >= 60
    assert 0.1 < sum(row["score"] > 0 for row in rows) / len(rows) < 0.9
    for row in rows:
        judged = score_response(row["response"], target_of(row), metric)
        assert judged.official == pytest.approx(row["score"]), row
        assert judged.strict <= 1


@pytest.mark.parametrize(
    ("metric", "target", "right", "wrong"),
    [
        ("mmmu-pro", Target(kind="multiple-choice", answers=("B",), options=OPTIONS), ["B", "(B)"], ["A", "A or B"]),
        ("vlm2-bench", Target(kind="short", answers=("T",), details={"category": "gc-mat"}), ["T", "True."],
         ["F", "It is true", "T or F"]),
        ("vlm2-bench", Target(kind="short", answers=("3",), details={"category": "pc-cnt", "images": 4}),
         ["3", "three"], ["4", "none", "3 or 4"]),
        ("vlm2-bench", Target(kind="short", answers=("(C)",), details={"category": "oc-grp"}), ["C", "(C)"],
         ["A", "C because"]),
        ("llava-interleave", Target(kind="short", answers=("B",), details={"question_type": "multi-choice"}),
         ["B", "(b)", "B."], ["A", "A B"]),
        ("llava-interleave", Target(kind="short", answers=("A dog runs.",), details={"question_type": "open-ended"}),
         ["a dog runs"], ["A dog", ""]),
    ],
)  # fmt: skip
def test_strict_takes_the_answer_alone(metric: str, target: Target, right: list[str], wrong: list[str]) -> None:
    assert [score_response(said, target, metric).strict for said in right] == [1] * len(right)
    assert [score_response(said, target, metric).strict for said in wrong] == [0] * len(wrong)


def test_a_question_may_stand_in_the_image(read: Read) -> None:
    (sample,) = read("mmmu-pro-vision").samples
    assert sample.question == ""
    assert sample.prompt.startswith("<image>Answer with the option letter")
    assert sample.target.answers == ("B",)
    assert len(sample.options) == 3


def test_numbered_images_of_mmmu_pro(read: Read, photographs: list[bytes]) -> None:
    (sample,) = read("mmmu-pro").samples
    assert sample.prompt.startswith("<image> or <image>? ")
    assert [picture.load() for picture in sample.pictures] == [photographs[1], photographs[0]]


def test_seed_bench_has_the_rows_with_several_images_alone(read: Read) -> None:
    pair, interleaved = read("seed-bench-2").samples
    assert (pair.skill, len(pair.pictures), pair.prompt.count("<image>")) == ("17", 2, 2)
    assert (interleaved.skill, len(interleaved.pictures)) == ("23", 3)
    assert interleaved.prompt.startswith("<image>: One. <image>: Two. <image>:\nA. ")
    assert [sample.id for sample in read("seed-bench-2", pictures=False).samples] == ["17_0", "23_0"]


def test_interleave_bench_has_choices_and_open_questions(read: Read) -> None:
    choice, opened = read("llava-interleave-in-domain").samples
    assert (choice.skill, opened.skill) == ("Puzzle", "Visual-Story-Telling")
    assert score_response("B. it", choice.target, "llava-interleave").official == 1
    assert score_response("A dog sits.", opened.target, "llava-interleave").official == pytest.approx(2 / 3)


def write_tsv(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def test_vlm2_bench_reads_its_tsv(tmp_path: Path, photographs: list[bytes]) -> None:
    cells = [base64.b64encode(data).decode() for data in photographs[:3]]
    ask = 'Is "it"\tthe same?\nT or F'
    rows = [
        {"index": "gc-mat_1_p", "category": "gc-mat", "question": ask, "answer": "T", "image": str(cells[:2])},
        {"index": "gc-mat_1_n", "category": "gc-mat", "question": ask, "answer": "F", "image": "gc-mat_1_p"},
        {"index": "oc-cnt_7", "category": "oc-cnt", "question": "How many?", "answer": "2", "image": str(cells)},
        {"index": "oc-grp_2", "category": "oc-grp", "question": "Which?", "answer": "A", "image": cells[0]},
        {"index": "pc-grp_9", "category": "pc-grp", "question": "Which?", "answer": "A", "image": "['%%%']"},
        {"index": "pc-grp_8", "category": "pc-grp", "question": "Which?", "answer": "A", "image": ""},
    ]
    write_tsv(tmp_path / "vlm2/VLM2Bench_img.tsv", rows)
    benchmark = load_benchmark("vlm2-bench")
    made = read_benchmark(tmp_path / "vlm2", benchmark, spool=tmp_path)
    positive, negative, count, group = made.samples
    assert positive.unit == negative.unit == "gc-mat_1" != count.unit == "oc-cnt_7"
    assert [picture.load() for picture in negative.pictures] == photographs[:2]
    assert positive.prompt == f"<image><image>Question: {ask}\n"
    assert count.target.details["images"] == 3
    assert len(group.pictures) == 1
    assert [each.reason for each in made.missing] == ["image-unreadable", "image-unreadable"]
    without = read_benchmark(tmp_path / "vlm2", benchmark, spool=tmp_path, pictures=False)
    assert [each.target for each in without.samples][:4] == [each.target for each in made.samples]


@pytest.mark.parametrize(
    ("content", "message"), [(b"index\tquestion\n", "has no column image"), (b"\xff\xfe\n", "cannot be read as TSV")]
)
def test_a_wrong_tsv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "VLM2Bench_img.tsv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_benchmark(tmp_path, load_benchmark("vlm2-bench"), spool=tmp_path)


def test_video_mme_shows_eight_frames(
    tmp_path: Path,
    video: bytes,  # noqa: F811
    write_parquet: WriteParquet,
) -> None:
    options = ["A. A door opens.", "B. A dog barks.", "C. It rains.", "D. A car stops."]
    row = {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Law",
        "url": "",
        "task_type": "Counting Problem",
        "question": "What happens first?",
        "options": options,
        "answer": "B",
    }
    rows = [row | {"videoID": name, "question_id": f"{name}-{number}"}
            for name, number in (("one", 1), ("one", 2), ("two", 1), ("gone", 1))]  # fmt: skip
    folder = tmp_path / "video-mme"
    write_parquet(folder / "videomme/test-00000-of-00001.parquet", rows)
    with zipfile.ZipFile(folder / "videos_chunked_01.zip", "w") as archive:
        archive.writestr("data/one.mp4", video)
        archive.writestr("data/two.mp4", b"broken")
    made = read_benchmark(folder, load_benchmark("video-mme"), spool=tmp_path)
    assert [sample.id for sample in made.samples] == ["one-1", "one-2"]
    frames = [number_of(picture.load()) for picture in made.samples[0].pictures]
    assert len(frames) == 8 == made.samples[0].prompt.count("<image>")
    assert frames == sorted(frames)
    assert frames[-1] - frames[0] > 40  # of 60
    assert "A. A door opens.\nB. A dog barks." in made.samples[0].prompt
    assert [(each.id, each.reason) for each in made.missing] == [
        ("two-1", "video-unreadable"), ("gone-1", "video-missing")]  # fmt: skip
    without = read_benchmark(folder, load_benchmark("video-mme"), spool=tmp_path, pictures=False)
    assert len(without.samples) == 4


def test_a_layout_of_videos_says_where_they_are() -> None:
    text = """
title: Mine
layout: videos
files: [rows.parquet]
kind: multiple-choice
metric: video-mme
prompts: {official: {templates: {multiple-choice: "{question}"}}}
skills: {one: {label: One}}
"""
    with pytest.raises(EvaluationError, match="needs `video`"):
        parse_benchmark(text, name="mine")
    with pytest.raises(EvaluationError, match=r"video.path"):
        parse_benchmark(text + 'video: {column: name, path: "{}.mp4"}\n', name="mine")
    assert parse_benchmark(text + 'video: {column: name, path: "data/{}.mp4"}\n', name="mine").video is not None
