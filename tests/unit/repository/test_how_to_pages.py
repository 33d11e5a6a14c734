"""The examples of the how-to pages work as they stand there."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from components.data.prepare.conversation_rules import ConversationRules
from components.data.prepare.image_checks import check_image
from components.data.sources.files.form_table import SOURCE_FORMS
from components.data.sources.find import find_sources
from components.data.sources.rows.row_reader import ROW_FORMS
from components.evaluation.benchmarks import benchmark_catalog
from components.evaluation.readers.benchmark_reader import read_benchmark
from tests.fixtures.evaluation import WriteParquet

HOW_TO = Path(__file__).parents[3] / "docs/how-to"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language, in the order of the page."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def draw(folder: Path, rows: list[dict[str, list[str]]]) -> None:
    for path in [folder / name for row in rows for name in row["images"]]:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(path)


def test_the_conversation_of_bring_your_data_is_kept(tmp_path: Path) -> None:
    text = blocks("bring-your-data.md", "json")[0]
    draw(tmp_path, json.loads(text))
    (tmp_path / "train.json").write_text(text)
    (source,) = find_sources(str(tmp_path)).values()
    rules = ConversationRules(max_images=None, max_turn_characters=1000, ignore=frozenset())
    checked = [
        rules.check(str(source.reader.id_of(raw)), source.reader.read(raw)) for raw in source.rows.read(lambda _: True)
    ]
    assert [(row.id, len(row.turns), len(row.media), row.repairs) for row in checked] == [("cats-1", 2, 2, ())]
    assert source.images.read("images/1.jpg", max_bytes=10_000).startswith(b"\xff\xd8")


def forms_of_the_page() -> dict[str, tuple[str, str]]:
    """The language and the example below each heading that is the name of a form."""
    text = (HOW_TO / "bring-your-data.md").read_text(encoding="utf-8")
    found = re.findall(r"^#### `([\w-]+)`\n\n```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return {name: (language, example) for name, language, example in found}


EXAMPLE_FILES = {"json-list": "train.json", "json-lines": "cats.jsonl", "json-object": "cats.json"}
FILES, ROWS = ([form.name for form in forms] for forms in (SOURCE_FORMS, ROW_FORMS))


def test_every_form_has_a_row_in_a_table_and_a_short_example() -> None:
    examples = forms_of_the_page()
    assert list(examples) == [*FILES, *ROWS]
    lines = {name: sum(map(bool, example.splitlines())) for name, (_, example) in examples.items()}
    assert {name: count for name, count in lines.items() if count > 4} == {}
    text = (HOW_TO / "bring-your-data.md").read_text(encoding="utf-8")
    assert [name for name in (*FILES, *ROWS) if f"\n| `{name}` | " not in text] == []


@pytest.mark.parametrize("name", [*FILES, *ROWS])
def test_the_example_of_a_form_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path, [{"images": ["1.jpg", "2.jpg"]}])
    language, example = forms_of_the_page()[name]
    if language == "python":
        exec(example, {})
    else:
        file = EXAMPLE_FILES.get(name, "rows.jsonl")
        (tmp_path / file).write_text(example if name in EXAMPLE_FILES else json.dumps(json.loads(example)))
    (source,) = find_sources(str(tmp_path)).values()
    files, rows = source.described().split(" with rows of the form ")
    assert (files if name in FILES else rows) == name
    rules = ConversationRules(max_images=None, max_turn_characters=1000, ignore=frozenset())
    for raw in source.rows.read(lambda _: True):
        checked = rules.check("row", source.reader.read(raw))
        assert checked.repairs == ()
        for image in source.reader.read(raw).images:
            data = source.images.read(image.path, max_bytes=10_000) if image.data is None else image.data
            assert data == (tmp_path / "1.jpg").read_bytes()


def test_the_images_of_bring_your_data_are_read_in_every_form(tmp_path: Path) -> None:
    (example,) = [text for text in blocks("bring-your-data.md", "json") if "data:image/gif" in text]
    draw(tmp_path, [{"images": ["1.jpg", "2.jpg"]}])
    (tmp_path / "rows.jsonl").write_text(example.replace("FOLDER", str(tmp_path)))
    (source,) = find_sources(str(tmp_path)).values()
    rows = [source.reader.read(raw) for raw in source.rows.read(lambda _: True)]
    assert [[image.path for image in row.images] for row in rows] == [["1.jpg"], ["2.jpg", "1.jpg"], ["#1"], ["3.gif"]]
    for image in [image for row in rows for image in row.images]:
        data = source.images.read(image.path, max_bytes=10_000) if image.data is None else image.data
        assert check_image(image.path, data, max_pixels=10_000).width in (1, 64)


def test_the_benchmark_of_add_a_benchmark_is_read(tmp_path: Path) -> None:
    (described,) = [text for text in blocks("add-a-benchmark.md", "yaml") if text.startswith("title:")]
    samples = blocks("add-a-benchmark.md", "json")[0]
    (tmp_path / "pets.yaml").write_text(described)
    draw(tmp_path / "pets", json.loads(samples))
    (tmp_path / "pets/test.json").write_text(samples)
    benchmark = benchmark_catalog.load_benchmark(str(tmp_path / "pets.yaml"))
    (sample,) = read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path).samples
    assert sample.valid_answers(benchmark) == ("A", "B")
    assert len(sample.pictures) == sample.prompt.count("<image>") == 2
    assert sample.target.answers == ("A",)


def test_the_parquet_lines_of_add_a_benchmark_are_enough(tmp_path: Path, write_parquet: WriteParquet) -> None:
    described, parquet = (
        next(text for text in blocks("add-a-benchmark.md", "yaml") if text.startswith(start))
        for start in ("title:", "layout:")
    )
    rows = json.loads(blocks("add-a-benchmark.md", "json")[0])
    draw(tmp_path / "pets", rows)
    for row in rows:
        row["images"] = [{"bytes": (tmp_path / "pets" / name).read_bytes(), "path": name} for name in row["images"]]
    write_parquet(tmp_path / "pets/test.parquet", rows)
    (tmp_path / "pets.yaml").write_text(parquet + described)
    benchmark = benchmark_catalog.load_benchmark(str(tmp_path / "pets.yaml"))
    (sample,) = read_benchmark(Path(benchmark.source), benchmark, spool=tmp_path).samples
    assert len(sample.pictures) == 2
