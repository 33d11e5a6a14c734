import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.evaluation.benchmarks.benchmark_catalog import (
    FOLDER,
    Benchmark,
    known_benchmarks,
    load_benchmark,
    parse_benchmark,
)
from components.evaluation.readers.benchmark_reader import BenchmarkSample, read_benchmark, rows_identity
from mantis.errors import ConfigError, EvaluationError, InputError

MULTI = (FOLDER / "demo-multi.yaml").read_text()


def read(folder: Path, benchmark: Benchmark) -> list[BenchmarkSample]:
    return read_benchmark(folder, benchmark, spool=folder).samples


def rewrite(source: Path, change: Callable[..., Any]) -> Path:
    file = source / "demo-multi" / "test.json"
    rows = json.loads(file.read_text())
    change(rows)
    file.write_text(json.dumps(rows))
    return source / "demo-multi"


def test_every_shipped_benchmark_is_valid() -> None:
    assert {"demo-multi", "demo-single"} <= set(known_benchmarks())
    for name in known_benchmarks():
        assert load_benchmark(name).skills


def test_unknown_names_say_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"blonk.*demo-multi, demo-single"):
        load_benchmark("blonk")
    with pytest.raises(ConfigError, match=r"offical.*Did you mean official.*direct, official, lmms-eval"):
        load_benchmark("blink", profile="offical")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: short", "kind: essay", "kind = 'essay'"),
        ("metric: mantis", "metric: bleu", "metric = 'bleu'.*mathvista"),
        ("kind: short", "layout: parquet\nkind: short", "needs `files`"),
        ("file: test.json", "files: test.json", "file"),
        ("chance: 0.5", "chance: 50", "skills.compare.chance = 50"),
        ("metric: mantis", "metric: [", "not YAML"),
        ("kind: short", "kind: number", "prompts.direct.templates has no text for number"),
        ("prompts:", "prompts:\n  official: {metric: bleu, templates: {short: x}}", "metric = 'bleu' is not known"),
        ("prompts:", "prompts:\n  official: {images: around, templates: {short: x}}", "images = 'around'"),
    ],
)
def test_a_wrong_benchmark_file_names_the_field(old: str, new: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        parse_benchmark(MULTI.replace(old, new, 1), name="demo-multi")


def test_revision_follows_the_content() -> None:
    changed = parse_benchmark(MULTI.replace("0.5", "0.4"), name="demo-multi")
    assert changed.revision() != load_benchmark("demo-multi").revision()
    titled = parse_benchmark(MULTI.replace("Demo, several", "The demo, several"), name="demo-multi")
    assert titled.revision() == load_benchmark("demo-multi").revision()
    commented = parse_benchmark("# a comment\n" + MULTI, name="demo-multi")
    assert commented.revision() == load_benchmark("demo-multi").revision()


def test_samples_as_they_are_in_the_file(eval_source: Path) -> None:
    samples = read(eval_source / "demo-multi", load_benchmark("demo-multi"))
    assert [sample.id for sample in samples] == [f"q{number}" for number in range(60)]
    assert [len(sample.pictures) for sample in samples[:4]] == [0, 2, 3, 4]
    picture = samples[1].pictures[0]
    assert picture.load() == (eval_source / "demo-multi" / "images/1-0.jpg").read_bytes()
    assert (picture.size.width, picture.size.height) == (48, 48)


def test_multiple_choice_prompt_and_missing_marks(eval_source: Path) -> None:
    def change(rows: Any) -> None:
        for row in rows:
            row["answer"] = "(b)"
        rows[1]["question"] = "Which <image>?"

    text = MULTI.replace("kind: short", "kind: multiple-choice").replace(
        'short: "{question}"', r'multiple-choice: "{question}\n{options}\nAnswer with the letter."'
    )
    benchmark = parse_benchmark(text, name="demo-multi")
    sample = read(rewrite(eval_source, change), benchmark)[1]
    assert sample.prompt == (
        "<image>Which <image>?\n (A) red\n (B) blue\n (C) green\n (D) dark grey\nAnswer with the letter."
    )
    assert sample.answer == "B"
    assert sample.valid_answers(benchmark) == ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3].pop("answer"), "row 3: answer"),
        (lambda rows: rows[3].update(skill="magic"), r"row 3: skill = 'magic'.*compare, coref"),
        (lambda rows: rows[3].update(answer="pink"), r"row 3: answer = 'pink'.*red, blue"),
        (lambda rows: rows[3].update(question="<image>" * 9), r"row 3: question.*5 more <image> marks"),
        (lambda rows: rows[3].update(images="a.jpg"), r"row 3: images = 'a.jpg'"),
        (lambda rows: rows[3].update(id="q1"), r"row 3: id = 'q1'.*earlier row"),
        (lambda rows: rows[1].update(images=["gone.jpg", "images/1-0.jpg"]), r"gone.jpg.*No such file"),
        (lambda rows: rows.clear(), "no list of samples"),
        (lambda rows: rows.__setitem__(2, "text"), "row 2 is str"),
    ],
)
def test_wrong_rows_are_named(eval_source: Path, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(rewrite(eval_source, change), load_benchmark("demo-multi"))


def test_wrong_files_are_named(eval_source: Path) -> None:
    benchmark = load_benchmark("demo-multi")
    (eval_source / "demo-multi" / "images/1-0.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1-0.jpg.*no image"):
        read(eval_source / "demo-multi", benchmark)
    (eval_source / "demo-multi" / "test.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read(eval_source / "demo-multi", benchmark)
    with pytest.raises(InputError, match=r"test.json cannot be read.*evaluation.source"):
        read(eval_source / "elsewhere", benchmark)


def test_identity_follows_the_pictures(eval_source: Path) -> None:
    benchmark = load_benchmark("demo-multi")
    folder = eval_source / "demo-multi"
    before = rows_identity(folder, benchmark, read(folder, benchmark))
    (folder / "images/1-0.jpg").write_bytes((folder / "images/2-0.jpg").read_bytes())
    assert rows_identity(folder, benchmark, read(folder, benchmark)) != before
