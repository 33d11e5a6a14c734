import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from mantis.errors import ConfigError
from mantis.hashing import sha256_bytes
from mantis.synthetic import BENCHMARKS, SUBSETS, write_demo_benchmark, write_demo_data, write_demo_subset
from mantis.synthetic.dataset import shares
from mantis.synthetic.drawing import COLOURS, GROUND, PLACES

SAMPLES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_data(folder, seed=0, conversations=400, samples_per_skill=SAMPLES)
    return folder


def training(folder: Path) -> dict[str, Any]:
    return {subset: json.loads((folder / subset / "train.json").read_text()) for subset in SUBSETS}


def held_out(folder: Path) -> dict[str, Any]:
    tests = folder / "benchmarks"
    return {benchmark: json.loads((tests / benchmark / "test.json").read_text()) for benchmark in BENCHMARKS}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shown(path: Path) -> tuple[str, str]:
    """The colour and the place that a picture shows, read from its pixels."""
    pixels = simplejpeg.decode_jpeg(path.read_bytes()).astype(float)
    shape = np.ptp(pixels, axis=2) > 60
    rows, columns = np.nonzero(shape)
    mean = pixels[shape].mean(axis=0)
    colour = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
    place = f"{'top' if rows.mean() < 23.5 else 'bottom'} {'left' if columns.mean() < 23.5 else 'right'}"
    return colour, place


def right_answer(question: str, pictures: list[tuple[str, str]]) -> str:
    """The answer that the pictures themselves give."""
    colours, places = zip(*pictures, strict=True)
    if "direction" in question:
        (top_before, left_before), (top, left) = (place.split() for place in (places[0], places[-1]))
        if left_before != left:
            return left
        return "up" if top_before == "bottom" and top == "top" else "down"
    if "same or different" in question:
        return "same" if colours[0] == colours[1] else "different"
    if "How many" in question:
        return str(colours.count(next(colour for colour in COLOURS if colour in question)))
    image = int(question.rpartition("image ")[2].rstrip("?")) - 1 if "image " in question else 0
    if "Describe" in question:
        return f"A {colours[0]} shape at the {places[0]}."
    return colours[image] if "colour" in question else places[image]


def test_every_answer_is_what_the_pictures_show(folder: Path) -> None:
    for subset, rows in training(folder).items():
        for row in rows[:60]:
            pictures = [shown(folder / subset / path) for path in row["images"]]
            asked, given = row["conversation"][::2], row["conversation"][1::2]
            for question, answer in zip(asked, given, strict=True):
                assert answer["content"] == right_answer(question["content"].replace("<image>", ""), pictures), row
    for benchmark, rows in held_out(folder).items():
        for row in rows[:80]:
            pictures = [shown(folder / "benchmarks" / benchmark / path) for path in row["images"]]
            assert row["answer"] == right_answer(row["question"].replace("<image>", ""), pictures), row


def test_the_same_arguments_give_the_same_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        write_demo_data(tmp_path / name, seed=3, conversations=500, samples_per_skill=4, workers=workers)
    write_demo_data(tmp_path / "other", seed=4, conversations=500, samples_per_skill=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_one_subset_and_one_benchmark_are_the_same_alone(folder: Path, tmp_path: Path) -> None:
    write_demo_subset(tmp_path, "demo-single", seed=0, conversations=400)
    assert contents(tmp_path / "demo-single") == contents(folder / "demo-single")
    write_demo_benchmark(tmp_path, "demo-multi", seed=0, samples_per_skill=SAMPLES)
    assert contents(tmp_path / "demo-multi") == contents(folder / "benchmarks" / "demo-multi")


def test_names_that_are_not_generated_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"demo-multi, demo-single"):
        write_demo_subset(tmp_path, "demo", seed=0, conversations=10)
    with pytest.raises(ConfigError, match=r"demo-multi, demo-single"):
        write_demo_benchmark(tmp_path, "demo", seed=0, samples_per_skill=10)


def test_the_subsets_share_all_conversations(folder: Path) -> None:
    assert sum(shares(20_000).values()) == 20_000
    assert {subset: len(rows) for subset, rows in training(folder).items()} == shares(400)


def test_answers_are_balanced_and_every_skill_has_its_samples(folder: Path) -> None:
    skills: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for rows in held_out(folder).values():
        for row in rows:
            assert row["answer"] in row["options"]
            assert row["question"].count("<image>") == len(row["images"])
            skills.setdefault(row["skill"], []).append((tuple(row["options"]), row["answer"]))
    assert set(skills) == {"compare", "coref", "temporal", "reason", "single"}
    for skill, answers in skills.items():
        assert len(answers) == SAMPLES
        counts = Counter(answers)
        assert set(counts) == {(options, answer) for options in {each for each, _ in answers} for answer in options}
        assert max(counts.values()) - min(counts.values()) <= 1, skill


def test_no_answer_follows_from_one_image_where_several_are_needed(folder: Path) -> None:
    """Where all images agree, or a first frame gives the motion away, one image would do."""
    moves: Counter[Any] = Counter()
    for row in held_out(folder)["demo-multi"]:
        pictures = [shown(folder / "benchmarks" / "demo-multi" / path) for path in row["images"]]
        if row["skill"] == "coref":
            assert len({picture["colour" not in row["question"]] for picture in pictures}) > 1
        if row["skill"] == "temporal":
            moves[pictures[0][1], row["answer"]] += 1
    for place in PLACES:
        assert len([answer for first, answer in moves if first == place]) == 2


def test_questions_and_answers_vary_little_and_conversations_have_up_to_six_exchanges(folder: Path) -> None:
    rows = training(folder)["demo-multi"]
    exchanges = [len(row["conversation"]) // 2 for row in rows]
    assert max(exchanges) == 6
    assert min(exchanges) >= 1
    assert {len(row["images"]) for row in rows} == {2, 4}


def test_no_held_out_picture_is_in_training(folder: Path) -> None:
    def images(rows: Any, root: Any) -> Any:
        return {sha256_bytes((root / path).read_bytes()) for row in rows for path in row["images"]}

    seen = {image for subset, rows in training(folder).items() for image in images(rows, folder / subset)}
    for benchmark, rows in held_out(folder).items():
        assert not seen & images(rows, folder / "benchmarks" / benchmark)


def test_held_out_pictures_differ_by_construction(folder: Path) -> None:
    """Not by luck: most of a picture is ground, even in training and odd in benchmarks, and the JPEG keeps it."""
    for root, held_out in ((folder / "demo-multi", 0), (folder / "benchmarks" / "demo-multi", 1)):
        grounds = {int(np.median(simplejpeg.decode_jpeg(path.read_bytes()))) for path in root.rglob("*.jpg")}
        assert {ground % 2 for ground in grounds} == {held_out}
        assert grounds == {2 * half + held_out for half in range(GROUND[0], GROUND[1] + 1)}
