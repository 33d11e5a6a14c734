import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.evaluation.benchmarks.benchmark_catalog import load_decoding
from components.evaluation.generation.generator import Generator, load_generator
from mantis.artifacts.manifest import Kind, MadeBy, Manifest
from mantis.config.recipe import Recipe
from mantis.models.processing.tokenizer_training import train_tokenizer
from mantis.models.registry import family
from mantis.runs.step_runner import Run
from mantis.store.local import LocalStore

COLOURS = ("red", "blue", "green", "dark grey")
WORDS = ["What colour is the square in image 1 2 3 4?\n red blue green dark grey same different"] * 3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """`demo-multi`: 60 questions with 1 to 4 random pictures, skills in turn, and one without pictures."""
    folder = tmp_path / "source" / "demo-multi"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    skills = ("compare", "coref", "temporal", "reason")
    rows = []
    for number in range(60):
        names = [f"images/{number}-{place}.jpg" for place in range(1 + number % 4 if number else 0)]
        for name in names:
            pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((48, 48)).save(buffer, "JPEG")
            (folder / name).write_bytes(buffer.getvalue())
        rows.append(
            {
                "id": f"q{number}",
                "skill": skills[number % 3 if number % 5 else 3],
                "question": "<image> " * len(names) + "What colour is the square?",
                "images": names,
                "options": list(COLOURS),
                "answer": COLOURS[number % 4],
            }
        )
    (folder / "test.json").write_text(json.dumps(rows))
    return folder.parent


@pytest.fixture
def recipe(source: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "eval-test",
            "model": {"prompt": "compact", "from_scratch": {"vision_width": 32, "text_width": 32, "text_layers": 2}},
            "evaluation": {"source": str(source), "benchmarks": ["demo-multi"], "batch_tokens": 300},
        }
    )


@pytest.fixture
def run(local_store: LocalStore, recipe: Recipe) -> Run:
    return Run(id="eval-run", store=local_store, recipe=recipe)


@pytest.fixture
def model(run: Run) -> Manifest:
    """A model in the store; its weights are blown up, so that its answers depend on what it sees."""
    settings = run.recipe.model
    llava = family(settings.family)
    tokenizer = train_tokenizer(WORDS, vocabulary=400, special_tokens=llava.special_tokens())
    processor = llava.processor(tokenizer, settings)
    built = llava.build(processor, seed=1)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    folder = run.store.root / "models" / "abc"
    built.save_pretrained(folder)
    processor.save(folder)
    made = MadeBy(run=run.id, step="convert", revision=1, config_hash="", code_version="", image_digest="")
    return Manifest(kind=Kind.MODEL, key="models/abc", fingerprint="abc", made_by=made)


@pytest.fixture
def answerer(run: Run, model: Manifest) -> Generator:
    return load_generator(run.store.root / "models" / "abc", run.recipe.model, load_decoding("greedy-short"))


@pytest.fixture(scope="session")
def jpegs(test_data: Path) -> list[bytes]:
    """Eight real photographs, as their files have them."""
    files = sorted((test_data / "mantis-chat").rglob("*.jpg"))[:8]
    return [file.read_bytes() for file in files]


@pytest.fixture(scope="session")
def write_parquet():
    """Rows to a Parquet file with the schema of the hub: images are structs of bytes and path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(path: Path, rows: list[dict]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)

    return write
