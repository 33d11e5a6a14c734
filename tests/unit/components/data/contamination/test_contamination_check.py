import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from components.data.step import assemble, prepare
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import Manifest
from mantis.errors import InputError
from mantis.images.perceptual_hash import ALIKE, alike, grey_levels, perceptual_hashes
from mantis.runs.records import State, StepRecord, read_record
from mantis.runs.step_runner import Run
from tests.fixtures.data import RawFolder, RunOn


def jpeg_of(image: Any, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with something in it, unlike any other."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def photographs(test_data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(test_data.rglob("*.jpg"))[:120]]


def hashes_of(images: list[bytes]) -> np.ndarray:
    return perceptual_hashes([grey_levels(image) for image in images])


def test_the_hash_is_that_of_imagehash(photographs: list[bytes]) -> None:
    for data in photographs[:20]:
        levels = grey_levels(data)
        ours = perceptual_hashes([levels])
        theirs = imagehash.phash(Image.fromarray(levels.astype(np.uint8)), hash_size=16)
        assert (np.unpackbits(ours.view(np.uint8)).astype(bool) == theirs.hash.ravel()).all()


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (lambda image: jpeg_of(image, 40), 1.0),
        (lambda image: jpeg_of(image.resize((image.width // 2, image.height // 2))), 1.0),
        (lambda image: jpeg_of(image.resize((336, 336))), 1.0),
        (lambda image: jpeg_of(ImageEnhance.Brightness(image).enhance(1.15)), 0.95),
    ],
    ids=["recompressed", "halved", "squeezed", "brighter"],
)
def test_photographs_are_known_again(photographs: list[bytes], change: Callable[..., Any], share: float) -> None:
    kept = [data for data in photographs if grey_levels(data) is not None]
    changed = [change(Image.open(io.BytesIO(data))) for data in kept]
    ours, theirs, distances = alike(hashes_of(kept), hashes_of(changed))
    assert (ours == theirs).all(), "no photograph looks like another"
    assert len(ours) >= share * len(kept)
    assert (distances <= ALIKE).all()


def test_distances_are_counted_bit_by_bit() -> None:
    generator = np.random.default_rng(0)
    ours = generator.integers(0, 2**63, (50, 4), dtype=np.uint64)
    theirs = ours[:10] ^ np.array([1, 0, 7, 0], dtype=np.uint64)
    found = alike(ours, theirs, within=4)
    assert [part.tolist() for part in found] == [list(range(10)), list(range(10)), [4] * 10]
    assert not len(alike(ours, theirs, within=3)[0])
    assert not len(alike(ours, theirs[:0])[0])


def test_small_and_plain_images_have_no_hash() -> None:
    assert grey_levels(jpeg_of(noise(0, (63, 200)))) is None
    assert grey_levels(jpeg_of(Image.new("RGB", (200, 200), "white"))) is None
    assert grey_levels(jpeg_of(noise(0, (64, 64)))) is not None
    png = io.BytesIO()
    noise(0).convert("RGBA").save(png, "PNG")
    assert grey_levels(png.getvalue()) is not None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished step `contamination` and what it found."""

    run: Run
    mixture: Manifest
    record: StepRecord
    hits: list[dict[str, Any]]
    counts: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark whose images partly occur in the training data; `compare` runs the steps with overrides."""

    compare: Callable[..., Comparison]
    images: Path


@pytest.fixture
def compared(raw_folder: RawFolder, tmp_path: Path, run_on: RunOn) -> Benchmark:
    """A mixture of six training images and a benchmark of six, of which three were trained on in some way."""
    exact, resized, tiny, plain = noise(1), noise(2), noise(3, (40, 40)), Image.new("RGB", (200, 200), "white")
    training = {
        "exact.jpg": jpeg_of(exact),
        "resized.jpg": jpeg_of(resized),
        "tiny.jpg": jpeg_of(tiny),
        "plain.jpg": jpeg_of(plain),
        "other.jpg": jpeg_of(noise(4)),
    }
    rows = [raw_folder.row(name, raw_folder.image(name, data)) for name, data in training.items()]
    rows.append(raw_folder.row("again", "exact.jpg", "other.jpg"))
    rows.append(raw_folder.row("recompressed", raw_folder.image("recompressed.jpg", jpeg_of(exact, 60))))
    raw_folder.write(rows)
    folder = tmp_path / "benchmarks" / "demo-single"
    (folder / "images").mkdir(parents=True)
    shown = {
        "same.jpg": training["exact.jpg"],
        "alike.jpg": jpeg_of(resized.resize((90, 70)), 60),
        "tiny.jpg": training["tiny.jpg"],
        "tiny-alike.jpg": jpeg_of(tiny, 50),
        "plain.png.jpg": jpeg_of(plain, 50),
        "broken.jpg": b"no image",
    }
    for name, data in shown.items():
        (folder / "images" / name).write_bytes(data)
    (folder / "test.json").write_text("[]")
    benchmarks = json.dumps(str(folder.parent))

    def compare(overrides: dict[str, str] | None = None) -> Comparison:
        given = {"evaluation.benchmarks": "[demo-single]", "evaluation.source": benchmarks} | (overrides or {})
        run = run_on(raw_folder.folder, given)
        mixture = assemble(run, [prepare(run, "raw")])
        record = read_record(run.store, "test", "contamination")
        prefix = record.key
        hits = pq.read_table(io.BytesIO(run.store.get(f"{prefix}/hits.parquet"))).to_pylist()
        counts = json.loads(run.store.get(f"{prefix}/benchmarks.json"))["benchmarks"]
        return Comparison(run=run, mixture=mixture, record=record, hits=hits, counts=counts)

    return Benchmark(compare=compare, images=folder / "images")


def test_hits_are_exact_or_alike_and_name_every_training_row(compared: Benchmark) -> None:
    compare = compared.compare
    done = compare()
    record, hits, counts = done.record, done.hits, done.counts
    found = {(hit["image"], hit["match"], hit["id"], hit["row"], hit["path"]) for hit in hits}
    assert found == {
        ("images/same.jpg", "exact", "exact.jpg", 0, "exact.jpg"),
        ("images/same.jpg", "exact", "again", 5, "exact.jpg"),
        ("images/same.jpg", "similar", "recompressed", 6, "recompressed.jpg"),  # counts as exact
        ("images/alike.jpg", "similar", "resized.jpg", 1, "resized.jpg"),
        ("images/tiny.jpg", "exact", "tiny.jpg", 2, "tiny.jpg"),
    }
    assert all(0 < hit["distance"] <= ALIKE for hit in hits if hit["match"] == "similar")
    assert counts == [
        {
            "benchmark": "demo-single",
            "images": 6,
            "hashed": 2,
            "unreadable": 1,
            "exact": 2,
            "similar": 1,
            "samples": 5,
        }
    ]
    assert (record.summary["images"], record.summary["seen"], record.summary["seen/demo-single"]) == (6, 3, 3)


def test_another_benchmark_is_compared_anew_and_the_mixture_stays(compared: Benchmark) -> None:
    compare, images = compared.compare, compared.images
    before = compare()
    mixture, first = before.mixture, before.record
    assert compare().record.state is State.REUSED
    (images / "same.jpg").unlink()
    after = compare()
    again, second, hits = after.mixture, after.record, after.hits
    assert again == mixture
    assert mixture.kind is ArtifactKind.MIXTURE
    assert second.fingerprint != first.fingerprint
    assert not [hit for hit in hits if hit["image"] == "images/same.jpg"]


def test_only_rows_of_the_mixture_count(compared: Benchmark) -> None:
    compare = compared.compare
    hits = compare({"data.subsets": "[{name: raw, cap: 1}]"}).hits
    assert len({hit["row"] for hit in hits}) <= 1


def test_generated_benchmarks_share_no_image_with_generated_training(run_on: RunOn) -> None:
    run = run_on(
        "generated",
        {
            "data.generated_conversations": "40",
            "evaluation.benchmarks": "[demo-multi, demo-single]",
            "evaluation.samples_per_skill": "2",
        },
    )
    assemble(run, [prepare(run, subset) for subset in ("demo-multi", "demo-single")])
    summary = read_record(run.store, "test", "contamination").summary
    assert summary["images"] > 10
    assert summary["seen"] == 0


def test_images_within_parquet_files_are_compared_from_a_folder_and_from_a_mirror(compared: Benchmark) -> None:
    compare, images = compared.compare, compared.images
    rows = [
        {"id": "0", "image": {"bytes": b"not of the mixture", "path": "a.jpg"}, "images": []},
        {"id": "1", "image": None, "images": [{"bytes": (images / "same.jpg").read_bytes(), "path": "b.jpg"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), images.parent / "val-0.parquet")
    done = compare()
    run, hits = done.run, done.hits
    within = {(hit["image"], hit["id"]) for hit in hits if "#" in hit["image"]}
    assert within == {("val-0.parquet#1/images/0/bytes", row) for row in ("exact.jpg", "again", "recompressed")}

    mirror = "sources/benchmarks/demo-single/abc"
    run.store.put_file(f"{mirror}/files/val-0.parquet", images.parent / "val-0.parquet")
    assert compare({"evaluation.source": "mirror"}).hits == [], "a mirror without a manifest is not whole"
    run.store.put(f"{mirror}/manifest.json", b"{}")
    hits = compare({"evaluation.source": "mirror"}).hits
    assert {hit["image"] for hit in hits} == {"abc/files/val-0.parquet#1/images/0/bytes"}


def test_a_parquet_file_that_is_none_is_named(compared: Benchmark) -> None:
    compare, images = compared.compare, compared.images
    (images.parent / "val-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"val-0\.parquet cannot be read as Parquet"):
        compare()
