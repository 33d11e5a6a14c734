"""Zips as they should not be: each fault costs the rows that meet it and has a line in the ledger, or is an error."""

import io
import json
import random
import stat
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.data.sources.find import open_source
from components.data.sources.images.zip_images import ZipImages
from components.data.sources.rejection import RowRejected
from components.data.sources.source_identity import Memory
from components.data.step import prepare
from mantis.errors import InputError
from mantis.store.local import LocalStore
from tests.fixtures.data import MakeJpeg, RawFolder, RowsOf, RunOn

LIMIT = 1 << 20


def images_in(folder: Path) -> ZipImages:
    store = LocalStore(folder)
    return ZipImages(store=store, files=store.children("")[0])


def zipped(path: Path, members: dict[str, bytes], *, zip64: bool = False, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            with archive.open(name, "w", force_zip64=zip64) as member:
                member.write(data)
    return path


def refused(images: ZipImages, path: str) -> RowRejected:
    with pytest.raises(RowRejected) as caught:
        images.read(path, max_bytes=LIMIT)
    return caught.value


def test_each_fault_of_a_zip_has_its_line_in_the_ledger(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn, ledger_of: RowsOf, data_of: RowsOf
) -> None:
    whole = make_jpeg()
    huge = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(huge, "PNG")
    members = {
        "good.jpg": whole,
        "cut.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "huge.png": huge.getvalue(),
        "fat.bmp": b"BM" + bytes(40_000_000),
        "bomb.jpg": b"A" * 50_000,
        "crc.jpg": b"B" * 3_000,
        "../up.jpg": whole,
        "/rooted.jpg": whole,
    }
    archive = raw_folder.folder / "images.zip"
    zipped(archive, members, compression=zipfile.ZIP_DEFLATED)
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(link, "good.jpg")
        opened.writestr("a/../good.jpg", b"never read: the row's path is made plain first")
    # What both headers of a member say is changed: a bomb that declares itself small, a wrong CRC.
    data = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        crc = opened.getinfo("crc.jpg").CRC.to_bytes(4, "little")
    data = data.replace((50_000).to_bytes(4, "little"), (500).to_bytes(4, "little")).replace(crc, b"\1\2\3\4")
    archive.write_bytes(data)
    names = {
        "good": "good.jpg",
        "missing": "nowhere.jpg",
        "cut": "cut.jpg",
        "empty": "empty.jpg",
        "huge": "huge.png",
        "fat": "fat.bmp",
        "bomb": "bomb.jpg",
        "crc": "crc.jpg",
        "up": "../up.jpg",
        "rooted": "/rooted.jpg",
        "link": "link.jpg",
        "dots": "b/../good.jpg",
    }
    rows = [raw_folder.row(name, path) for name, path in names.items()]
    run = run_on(raw_folder.write(rows))
    dataset = prepare(run, "raw")
    entries = {entry["id"]: entry for entry in ledger_of(run, dataset)}
    assert {name: entry["reason"] for name, entry in entries.items()} == {
        "missing": "image-missing",
        "cut": "image-broken",
        "empty": "image-unknown",
        "huge": "image-pixels",
        "fat": "image-bytes",
        "bomb": "image-bomb",
        "crc": "image-broken",
        "up": "image-outside",
        "rooted": "image-outside",
        "link": "image-link",
    }
    assert entries["huge"]["value"] == "huge.png: 20000 x 10000"
    assert entries["fat"]["value"] == "fat.bmp: 40000002"
    assert entries["bomb"]["threshold"] == "the 500 bytes that its zip declares"
    assert [row["id"] for row in data_of(run, dataset)] == ["good", "dots"]


def test_a_bomb_is_not_inflated_beyond_its_declared_size(tmp_path: Path) -> None:
    declared, real = 20_000, 17_654_321
    path = zipped(tmp_path / "a.zip", {"bomb.jpg": bytes(real)}, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(real.to_bytes(4, "little"), declared.to_bytes(4, "little")))
    images = images_in(tmp_path)
    tracemalloc.start()
    try:
        assert refused(images, "bomb.jpg").reason == "image-bomb"
        assert tracemalloc.get_traced_memory()[1] < real // 8
    finally:
        tracemalloc.stop()


def test_the_same_image_too_large_is_the_same_in_a_folder_a_zip_and_a_row(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn, ledger_of: RowsOf
) -> None:
    fat = make_jpeg(form="BMP", size=(300, 300))
    raw_folder.image("fat.bmp", fat)
    text = [raw_folder.row("text"), raw_folder.row("fat", "fat.bmp")]
    run = run_on(raw_folder.write(text), {"data.max_image_bytes": "1000"})
    (entry,) = ledger_of(run, prepare(run, "raw"))
    other = type(raw_folder)(raw_folder.folder.parent / "zipped" / "raw")
    zipped(other.folder / "images.zip", {"fat.bmp": fat})
    run = run_on(other.write(text), {"data.max_image_bytes": "1000"})
    assert ledger_of(run, prepare(run, "raw")) == [entry]


@settings(max_examples=25, deadline=None)
@example(members={"0": b""}, deflated=False, before=b"", comment=b"PK\x05\x06", zip64=False)
@given(
    members=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/\\:\0"), min_size=1, max_size=20).filter(
            lambda name: name not in (".", "..")
        ),
        st.binary(max_size=2000),
        min_size=1,
        max_size=12,
    ),
    deflated=st.booleans(),
    before=st.binary(max_size=30),
    comment=st.binary(max_size=30),
    zip64=st.booleans(),
)
def test_every_member_of_any_zip_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, members: Any, deflated: Any, before: Any, comment: Any, zip64: Any
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    with pytest.MonkeyPatch.context() as patch:
        if zip64:
            before = b""
            patch.setattr(zipfile, "ZIP64_LIMIT", 5)
            patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        compression = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
        path = zipped(folder / "a.zip", members, zip64=zip64, compression=compression)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
            archive.mkdir("folder")
    path.write_bytes(before + path.read_bytes())
    images = images_in(folder)
    for name, data in members.items():
        assert images.read(name, max_bytes=LIMIT) == data
    assert refused(images, "folder").reason == "image-missing"


def test_of_two_parts_with_one_name_the_later_counts_and_ten_comes_after_two(
    raw_folder: RawFolder, run_on: RunOn, make_jpeg: MakeJpeg, data_of: RowsOf
) -> None:
    for part in (1, 2, 10):
        zipped(raw_folder.folder / f"images_part{part}.zip", {"a.jpg": make_jpeg((part, 0, 0))})
    run = run_on(raw_folder.write([raw_folder.row("a", "a.jpg")]))
    assert data_of(run, prepare(run, "raw"))[0]["images"] == [make_jpeg((10, 0, 0))]


def test_a_name_without_the_flag_of_utf8_is_found(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"x\u00e9.jpg": b"image"})
    data = path.read_bytes()
    assert data.count("x\u00e9.jpg".encode()) == 2
    path.write_bytes(data.replace("x\u00e9.jpg".encode(), b"x\x82\x82.jpg"))  # cp437: é is 0x82
    assert images_in(tmp_path).read("x\u00e9\u00e9.jpg", max_bytes=LIMIT) == b"image"


def test_a_zip_of_another_time_than_its_directory_is_noticed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.jpg": b"1" * 500, "b.jpg": b"2" * 500})
    images = images_in(tmp_path)
    images.read("a.jpg", max_bytes=LIMIT)
    zipped(path, {"c.jpg": b"1" * 500, "b.jpg": b"2" * 400})
    assert refused(images, "a.jpg").reason == "image-broken"
    assert refused(images, "b.jpg").reason == "image-broken"


def test_a_long_extra_field_takes_a_second_request(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.jpg")
    info.extra = b"\x99\x99\xd0\x07" + bytes(2000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"image")
    assert images_in(tmp_path).read("a.jpg", max_bytes=LIMIT) == b"image"


def test_a_zip_that_is_none_or_cut_off_is_an_error_with_its_name(
    raw_folder: RawFolder, make_jpeg: MakeJpeg, run_on: RunOn
) -> None:
    path = zipped(raw_folder.folder / "images.zip", {"a.jpg": make_jpeg()})
    folder = raw_folder.write([raw_folder.row("a", "a.jpg")])
    whole = path.read_bytes()
    for broken in (b"", b"no zip", whole[:-30], whole[50:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"images\.zip cannot be read as a zip"):
            prepare(run_on(folder), "raw")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_damage_is_refused_and_never_another_image(tmp_path_factory: pytest.TempPathFactory, seed: Any) -> None:
    """Any few bytes of a zip changed: what is still read is what was written."""
    generator = random.Random(seed)
    members = {f"{number}.jpg": generator.randbytes(300) for number in range(4)}
    folder = tmp_path_factory.mktemp("zip")
    path = zipped(folder / "a.zip", members, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(len(data))] = generator.randrange(256)
    path.write_bytes(data)
    images = images_in(folder)
    for name, image in members.items():
        try:
            assert images.read(name, max_bytes=LIMIT) == image
        except (RowRejected, InputError):
            continue


def test_the_identity_of_a_zip_is_its_directory(raw_folder: RawFolder, local_store: LocalStore) -> None:
    raw_folder.write(json.dumps([]))

    def identity(members: Any) -> Any:
        zipped(raw_folder.folder / "images.zip", members)
        return open_source(str(raw_folder.folder), "raw").fingerprint(Memory(store=local_store))

    first = identity({"a.jpg": b"1", "b.jpg": b"2"})
    assert identity({"a.jpg": b"1", "b.jpg": b"2"}) == first
    others = [{"a.jpg": b"1", "b.jpg": b"3"}, {"a.jpg": b"1", "c.jpg": b"2"}, {"a.jpg": b"1"}]
    assert first not in {identity(members) for members in others}


def test_reading_is_one_request_for_a_member_and_two_for_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "a.zip", {f"{number}.jpg": bytes(1000) for number in range(50)})
    images = images_in(tmp_path)
    ranges = []
    read = LocalStore.get_range
    monkeypatch.setattr(LocalStore, "get_range", lambda *given: ranges.append(given[2:]) or read(*given))
    for number in range(50):
        images.read(f"{number}.jpg", max_bytes=LIMIT)
    assert len(ranges) == 2 + 50
