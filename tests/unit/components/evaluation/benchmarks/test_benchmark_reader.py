"""Each benchmark from a file in its published layout to scores: the schema is the hub's, the photographs are real."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import known_benchmarks, load_benchmark
from components.evaluation.readers.benchmark_reader import read_benchmark
from components.evaluation.scoring.score_response import score_response
from tests.fixtures.evaluation import WriteParquet

LEFT, RIGHT, NEITHER = "Left one", "Right one", "Neither of them"
TEN = ["red"] * 8 + ["dark red"] * 2

# What a model may say to a choice whose right answer is B, and whether strict scoring, alike in all, finds it right.
SAID = {
    "right": ("B", 1),
    "wrong": ("A", 0),
    "verbose": ("Looking closely, option B fits what is shown.", 1),
    "brackets": ("(B)", 1),
    "lower case": ("b", 1),
    "two letters": ("A or B", 0),
    "refusal": ("I cannot see any image.", 0),
    "empty": ("", 0),
    "text": (RIGHT, 1),
    "language": ("Die richtige Antwort: B", 0),
    "thoughts behind": ("B\nLet me check once more: A has less light.", 1),
    "stated twice": ("Final Answer: A\nFinal Answer: B", 1),
}
# The official rule of each metric finds these right.
OFFICIAL = {
    "mantis": {"right", "brackets", "lower case", "text", "thoughts behind"},
    "mvbench": {"right", "brackets", "thoughts behind", "stated twice"},
    "blink": {"right", "verbose", "brackets", "lower case", "text", "language", "thoughts behind", "stated twice"},
    "mmmu": {"right", "verbose", "brackets", "two letters", "language", "stated twice"},
    "mmbench": {"right", "brackets", "text", "language"},
    "mmmu-pro": {"right", "verbose", "brackets", "two letters", "language", "stated twice"},
    "seed-bench-2": {"right", "thoughts behind"},
    "scienceqa": {"right", "lower case"},
    # Without a model that finds the answer, the most similar option is taken of whatever is said, German too.
    "mathvista": {
        "right",
        "verbose",
        "brackets",
        "lower case",
        "text",
        "language",
        "thoughts behind",
        "stated twice",
    },
}
# The same kinds of response to a question whose answer is a word, "red" here.
WORDS = {
    "right": "red",
    "wrong": "blue",
    "verbose": "The colour of it is red.",
    "brackets": "(red)",
    "lower case": "RED",
    "two letters": "red or blue",
    "refusal": "I cannot see any image.",
    "empty": "",
    "text": "the red",
    "language": "rot",
    "thoughts behind": "red\nIt seems so.",
    "stated twice": "Final Answer: blue\nFinal Answer: red",
}
# Of a short answer: official, strict.
SHORT = {
    "mantis": ({"right", "lower case"}, {"right", "lower case", "thoughts behind", "stated twice"}),
    "vqa": (
        {"right", "brackets", "lower case", "text"},
        {"right", "brackets", "lower case", "text", "thoughts behind", "stated twice"},
    ),
    "vqa-evalai": (
        {"right", "brackets", "lower case", "text"},
        {"right", "brackets", "lower case", "text", "thoughts behind", "stated twice"},
    ),
    "mmmu": (
        {"right", "verbose", "brackets", "lower case", "two letters", "text", "thoughts behind", "stated twice"},
        {"right", "lower case", "thoughts behind", "stated twice"},
    ),
    "mirb": ({"right", "lower case", "thoughts behind"}, {"right", "lower case", "thoughts behind", "stated twice"}),
}


def image(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": "a.jpg"}


def rows_of(name: str, jpegs: list[bytes]) -> tuple[str, list[dict[str, Any]]]:
    """The file of a benchmark and its rows as published: (path, rows)."""
    one, two, three = (image(data) for data in jpegs[:3])
    options = [LEFT, RIGHT, NEITHER]
    ask = "Which one is brighter?"
    mantis = {"images": [one, two], "data_source": "", "category": ""}
    letters = {"A": LEFT, "B": RIGHT, "C": NEITHER, "D": "nan"}
    numbered = {f"image_{number}": None for number in range(3, 8)}
    pages = {f"image_{number}": None for number in range(2, 16)}
    math = {"image": "a.jpg", "decoded_image": one, "unit": None, "precision": None, "metadata": "{}"}
    vqa = {"question_id": 7, "image": one, "question": "What colour is it?"}
    tables: dict[str, tuple[str, list[dict[str, Any]]]] = {
        "mantis-eval": ("mantis_eval/test-00000-of-00001.parquet", [
            {"id": "c1", "question_type": "multi-choice", "question": f"<image> <image> {ask}",
             "options": [f"(A) {LEFT}", f"(B) {RIGHT}", f"(C) {NEITHER}"], "answer": "B"} | mantis,
            {"id": "s1", "question_type": "short-answer", "question": "What colour?", "options": [],
             "answer": "red"} | mantis]),
        "nlvr2": ("nlvr2/test-00000-of-00002.parquet", [
            {"id": "n1", "question_type": "multi-choice", "question": "Both are red.", "options": ["True", "False"],
             "answer": "B"} | mantis]),
        "q-bench2": ("data/dev-00000-of-00003.parquet", [
            {"id": 3, "image1": one, "image2": two, "question": ask, "option0": LEFT, "option1": RIGHT,
             "option2": NEITHER, "option3": "N/A", "question_type": 2, "question_concern": 0, "correct_choice": "B"}]),
        "blink": ("Counting/val-00000-of-00001.parquet", [
            {"idx": "val_Counting_1", "question": ask, "sub_task": "Counting", "image_1": one, "image_2": two,
             "image_3": None, "image_4": None, "choices": options, "answer": "(B)", "explanation": None,
             "prompt": f"{ask}\nSelect from the following choices.\n(A) {LEFT}\n(B) {RIGHT}\n(C) {NEITHER}"}]),
        "muirbench": ("data/test-00000-of-00003.parquet", [
            {"idx": "0", "task": "Counting", "image_relation": "", "image_type": "", "question": f"<image>{ask}<image>",
             "options": [*options, "<image>"], "answer": "B", "image_list": [one, two, three]}]),
        "mirb": ("data/test-00000-of-00004.parquet", [
            {"question_id": 1, "subset": "plot_code", "questions": "Which library?", "answers": "red",
             "image_list": [one, two]}]),
        "textvqa": ("default/validation/0000.parquet", [vqa | {"answers": TEN, "ocr_tokens": ["red"]}]),
        "ok-vqa": ("data/val2014-00000-of-00002.parquet", [vqa | {"answers": TEN}]),
        "vqav2": ("data/validation-00000-of-00068.parquet", [vqa | {"answer_type": "other", "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": place} for place, answer in enumerate(TEN)]}]),
        "mmbench": ("en/dev-00000-of-00001.parquet", [
            {"index": index, "question": ask, "hint": hint, "answer": "B", "category": "ocr", "image": one,
             "L2-category": "", "split": "dev", "source": "", "comment": "nan"} | letters
            for index, hint in ((241, "nan"), (1_000_241, "Mind the light."))]),
        "mmmu": ("data/validation-00000-of-00001.parquet", [
            {"id": "validation_Art_1", "question": "<image 2> or <image 1>? " + ask, "options": str(options),
             "answer": "B", "question_type": "multiple-choice", "image_1": one, "image_2": two} | numbered,
            {"id": "validation_Music_2", "question": "What? <image 1>", "options": "[]", "answer": "['red', 'rouge']",
             "question_type": "open", "image_1": one, "image_2": None} | numbered]),
        "scienceqa-img": ("ScienceQA-IMG/test-00000-of-00001.parquet", [
            {"image": one, "question": ask, "choices": options, "answer": 1, "hint": hint, "subject": "natural science"}
            for hint in ("Light is bright.", "")]),
        "mathvista": ("data/testmini-00000-of-00001-725687bf7a18d64b.parquet", [
            {"pid": "1", "query": f"Hint: ...\nQuestion: {ask}", "question": ask, "choices": options, "answer": RIGHT,
             "question_type": "multi_choice", "answer_type": "text"} | math,
            {"pid": "2", "query": "How far?", "question": "How far?", "choices": None, "answer": "1.25",
             "question_type": "free_form", "answer_type": "float"} | math | {"precision": 2.0}]),
        "mmmu-pro": ("standard (10 options)/test-00000-of-00002.parquet", [
            {"id": "test_Art_1", "question": "<image 2> or <image 1>? " + ask, "options": str(options), "answer": "B",
             "subject": "Art", "image_1": one, "image_2": two, "topic_difficulty": "Easy"} | numbered]),
        "mmmu-pro-vision": ("vision/test-00000-of-00002.parquet", [
            {"id": "test_Art_1", "options": str(options), "answer": "B", "subject": "Art", "image": one}]),
        "seed-bench-2": ("data/test-00000-of-00040.parquet", [
            {"question_id": f"{kind}_0", "question_type_id": kind, "question": question, "data_type": "",
             "image": shown, "choice_a": LEFT, "choice_b": RIGHT, "choice_c": NEITHER, "choice_d": "Both",
             "answer": "B"}
            for kind, question, shown in (
                (5, "How many?", [one]), (17, ask, [one, two]),
                (23, "<img>: One. <img>: Two. <img>:", [one, two, three]))]),
        "llava-interleave-in-domain": ("in_domain/test-00000-of-00018.parquet", [
            {"sample_id": "1", "sub_task": "RAVEN", "question": f"<image><image>{ask} A. {LEFT} B. {RIGHT}",
             "question_type": "multi-choice", "answer": "B", "image_0": one, "image_1": two} | pages,
            {"sample_id": "2", "sub_task": "VIST", "question": "<image><image>Tell a story.",
             "question_type": "open-ended", "answer": "A dog runs.", "image_0": one, "image_1": two} | pages]),
        "llava-interleave-out-of-domain": ("out_of_domain/test-00000-of-00004.parquet", [
            {"sample_id": "1", "sub_task": "BLINK", "question": f"<image><image>{ask} A. {LEFT} B. {RIGHT}",
             "question_type": "multi-choice", "answer": "B", "image_0": one, "image_1": two} | pages]),
    }  # fmt: skip
    return tables[name]


PARQUET = [name for name in known_benchmarks() if load_benchmark(name).layout == "parquet"]


@pytest.fixture
def read(tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet) -> Callable[..., Any]:
    def read(name: Any, **more: Any) -> Any:
        file, rows = rows_of(name, photographs)
        write_parquet(tmp_path / name / file, rows)
        (tmp_path / "spool").mkdir(exist_ok=True)
        return read_benchmark(tmp_path / name, load_benchmark(name), spool=tmp_path / "spool", **more)

    return read


@pytest.mark.parametrize("name", PARQUET)
def test_published_rows_are_read(name: str, read: Callable[..., Any], photographs: list[bytes]) -> None:
    made = read(name)
    assert made.missing == []
    for sample in made.samples:
        assert sample.prompt.count("<image>") == len(sample.pictures) >= 1
        assert all(picture.load() in photographs for picture in sample.pictures)
    without = read(name, pictures=False)
    assert [sample.target for sample in without.samples] == [sample.target for sample in made.samples]
    assert not any(sample.pictures for sample in without.samples)


@pytest.mark.parametrize("name", [name for name in PARQUET if load_benchmark(name).metric in OFFICIAL])
def test_choices_are_scored(name: str, read: Callable[..., Any]) -> None:
    benchmark = load_benchmark(name)
    sample = next(each for each in read(name).samples if each.target.kind in ("multiple-choice", "true-false"))
    assert sample.target.answers == ("B",)
    for kind, (said, strict) in SAID.items():
        response = sample.options[1] if kind == "text" else said
        judged = score_response(response, sample.target, benchmark.metric)
        assert judged.official == (kind in OFFICIAL[benchmark.metric]), kind
        assert judged.strict == strict, kind


@pytest.mark.parametrize("name", ["mantis-eval", "mmmu", "mirb", "textvqa", "ok-vqa", "vqav2"])
def test_words_are_scored(name: str, read: Callable[..., Any]) -> None:
    metric = load_benchmark(name).metric
    official, strict = SHORT[metric]
    sample = next(each for each in read(name).samples if each.target.kind == "short")
    for kind, said in WORDS.items():
        judged = score_response(said, sample.target, metric)
        assert (judged.official, judged.strict) == (kind in official, kind in strict), kind


def test_numbers_are_scored(read: Callable[..., Any]) -> None:
    sample = read("mathvista").samples[1]
    expected = {"1.25": 1, "1.250": 1, "It is 1.25 m": 1, "Final Answer: 1.2\nFinal Answer: 1.25": 1, "1.3": 0,
                "": 0, "one": 0, "1.25 or 1.3": 0, "I cannot see.": 0}  # fmt: skip
    assert {said: score_response(said, sample.target, "mathvista").official for said in expected} == expected
    assert score_response("It is 1.25 m", sample.target, "mathvista").strict == 0


def test_layout_of_text_and_images(read: Callable[..., Any], photographs: list[bytes]) -> None:
    choice, short = read("mantis-eval").samples
    letters = (
        f"\n (A) {LEFT}\n (B) {RIGHT}\n (C) {NEITHER}\nAnswer with the option's letter from the given choices directly."
    )
    assert choice.prompt == "<image> <image> Which one is brighter?" + letters
    assert short.prompt == "<image><image>What colour?\nAnswer the question using a single word or phrase."
    assert len(read("muirbench").samples[0].pictures) == 3  # one of them is an option
    mmmu = read("mmmu").samples[0]
    assert mmmu.prompt.startswith("<image> or <image>? ")
    assert [picture.load() for picture in mmmu.pictures] == [photographs[1], photographs[0]]  # as the text names them
    assert [sample.skill for sample in read("mmmu").samples] == ["Art", "Music"]
    science = read("scienceqa-img").samples
    assert science[0].prompt.startswith("<image>\nContext: Light is bright.\nQuestion: Which")
    assert science[1].prompt.startswith("<image>\nContext: N/A\nQuestion: Which")
    assert [sample.id for sample in science] == ["0", "1"]
    plain, hinted = read("mmbench").samples
    assert plain.prompt.startswith("<image>\nWhich")
    assert hinted.prompt.startswith("<image>\nMind the light.\nWhich")
    assert plain.unit == hinted.unit == "241"  # the same question, its options rotated
    assert read("mirb").samples[0].prompt == "Answer with a single word.<image><image>Which library?"


def test_what_cannot_be_read_is_counted(tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet) -> None:
    file, rows = rows_of("q-bench2", photographs)
    wrong = [rows[0] | {"id": 4, "image2": image(b"nothing")}, rows[0] | {"id": 5, "correct_choice": "D"}, rows[0]]
    write_parquet(tmp_path / "q" / file, [*rows, *wrong])
    made = read_benchmark(tmp_path / "q", load_benchmark("q-bench2"), spool=tmp_path)
    assert [sample.id for sample in made.samples] == ["3"]
    assert [(each.id, each.skill, each.reason) for each in made.missing] == [
        ("4", "0", "image-unreadable"), ("5", "", "row-wrong"), ("3", "0", "row-wrong")]  # fmt: skip


def test_mementos_needs_its_keywords(tmp_path: Path, photographs: list[bytes], write_parquet: WriteParquet) -> None:
    rows = [{"id": name, "question": "Describe it.", "images": [image(data) for data in photographs[:4]], "options": [],
             "answer": "A dog runs.", "question_type": "short-answer"} for name in ("d1", "d2")]  # fmt: skip
    write_parquet(tmp_path / "mementos" / "single_image_dl-00000-of-00003.parquet", rows)
    lists = {"d1": {"objects": ["dog", "ball"], "behaviors": ["run"]}}
    (tmp_path / "keywords.json").write_text(json.dumps({"dl": {"synonyms": {"dog": ["puppy"]}, "samples": lists}}))
    made = read_benchmark(tmp_path, load_benchmark("mementos"), spool=tmp_path)
    (sample,) = made.samples
    assert (sample.id, sample.skill, len(sample.pictures)) == ("dl/d1", "dl", 4)
    assert [each.reason for each in made.missing] == ["keywords-missing"]
    said = {"A dog runs after a ball.": 1, "A puppy runs.": 5 / 6, "Dogs.": 1 / 3, "I cannot see it.": 0, "": 0,
            "Ein Hund rennt.": 0, "run, ball, dog": 1, "DOG": 1 / 3, "Final Answer: dog. Final Answer: ball": 1 / 2,
            "A cow sleeps.": 0, "(dog)": 1 / 3, "dog or ball": 1 / 2}  # fmt: skip
    for response, expected in said.items():
        assert score_response(response, sample.target, "mementos").official == pytest.approx(expected), response
