"""Writes the same rows in every form. A row is {id, images: [path], conversation: [{role, content}]}."""

import base64
import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Rows = Sequence[Row]
Images = Mapping[str, bytes]
Write = Callable[[Path, Rows, Images], None]
MARK = "<image>"


def write_images(folder: Path, images: Images) -> None:
    """Write every image at its path."""
    for path, data in images.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def zip_images(folder: Path, images: Images) -> None:
    """Move every image into one of two zips."""
    for part in range(2):
        with zipfile.ZipFile(folder / f"pictures_part{part}.zip", "w") as archive:
            for path in list(images)[part::2]:
                archive.writestr(path, images[path])
                (folder / path).unlink(missing_ok=True)


def json_list(folder: Path, rows: Rows, images: Images) -> None:
    """Write a JSON list, train.json."""
    write_images(folder, images)
    (folder / "train.json").write_text(json.dumps(rows))


def json_lines(folder: Path, rows: Rows, images: Images) -> None:
    """Write JSON Lines."""
    write_images(folder, images)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def json_lines_gz(folder: Path, rows: Rows, images: Images) -> None:
    """Write JSON Lines, compressed."""
    write_images(folder, images)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))


def json_lines_in_shards(folder: Path, rows: Rows, images: Images) -> None:
    """Write JSON Lines in more than ten shards."""
    write_images(folder, images)
    for shard, start in enumerate(range(0, len(rows), -(-len(rows) // 11))):
        part = rows[start : start + -(-len(rows) // 11)]
        (folder / f"part-{shard}.jsonl").write_text("\n".join(map(json.dumps, part)))


def json_lines_in_json(folder: Path, rows: Rows, images: Images) -> None:
    """Write JSON Lines with blank lines, under the name of a JSON list."""
    write_images(folder, images)
    (folder / "train.json").write_text("\n\n".join(map(json.dumps, rows)))


def json_object(folder: Path, rows: Rows, images: Images) -> None:
    """Write an object with the rows under `data`, behind another key."""
    write_images(folder, images)
    (folder / "set.json").write_text(json.dumps({"version": {"data": [1]}, "data": rows, "notes": None}, indent=1))


def parquet_any_name(folder: Path, rows: Rows, images: Images) -> None:
    """Write Parquet files with images in the rows, which are neither compressed nor in dictionaries.

    That is what `datasets` writes (arrow_writer.py, `use_dictionary` and `compression` per column).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part, some in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        table = _table(some, images)
        texts = ["id", "conversation.list.element.role", "conversation.list.element.content"]
        columns = ["images.list.element.bytes", "images.list.element.path"]
        pq.write_table(
            table,
            folder / f"000{part}.parquet",
            row_group_size=min(100, -(-len(rows) // 3)),
            use_dictionary=texts,
            compression=dict.fromkeys(texts, "snappy") | dict.fromkeys(columns, "none"),
        )


def parquet_in_small_groups(folder: Path, rows: Rows, images: Images) -> None:
    """Write Parquet as the page on data says: images in the rows, in small row groups without dictionaries."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(rows, images), folder / "set.parquet", row_group_size=16, use_dictionary=False)


def parquet_with_dictionaries(folder: Path, rows: Rows, images: Images) -> None:
    """Write Parquet with images in the rows as pyarrow does unless it is asked otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(rows, images), folder / "set.parquet")


def parquet_with_files(folder: Path, rows: Rows, images: Images) -> None:
    """Write Parquet with image files beside it."""
    write_images(folder, images)
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "set.parquet")


def parquet_with_messages(folder: Path, rows: Rows, images: Images) -> None:
    """Write the published layout with another column."""
    folder.mkdir(parents=True, exist_ok=True)
    table = _table(rows, images).rename_columns({"conversation": "messages"})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")


def arrow(folder: Path, rows: Rows, images: Images) -> None:
    """As `datasets` saves a set: streams, a state, a description, and a cache that is no part of it."""
    folder.mkdir(parents=True, exist_ok=True)
    half = -(-len(rows) // 2)
    for part, some in enumerate((rows[:half], rows[half:])):
        table = _table(some, images)
        with pa.ipc.new_stream(str(folder / f"data-0000{part}-of-00002.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=7)
    (folder / "cache-1234.arrow").write_bytes(b"another set")
    files = [{"filename": f"data-0000{part}-of-00002.arrow"} for part in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def webdataset(folder: Path, rows: Rows, images: Images) -> None:
    """Each row names its images; the members have other names."""
    folder.mkdir(parents=True, exist_ok=True)
    half = -(-len(rows) // 2)
    for shard, some in enumerate((rows[:half], rows[half:])):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for number, row in enumerate(some):
                names = [f"{shard}{number:04d}.{place}.jpg" for place in range(len(row["images"]))]
                for name, path in zip(names, row["images"], strict=True):
                    _add(tar, name, images[path])
                _add(tar, f"{shard}{number:04d}.json", json.dumps(row | {"images": names}).encode())


def webdataset_gz(folder: Path, rows: Rows, images: Images) -> None:
    """No row names its images: they are the members, in the order of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "train.tar.gz", "w:gz") as tar:
        for row in rows:
            for place in sorted(range(len(row["images"])), key=str):
                _add(tar, f"./in/{row['id'].replace('.', '_')}.{place}.jpg", images[row["images"][place]])
            said = {key: value for key, value in row.items() if key != "images"}
            _add(tar, f"./in/{row['id'].replace('.', '_')}.json", json.dumps(said).encode())


FILE_FORMS: dict[Write, str] = {
    json_list: "json-list",
    json_lines: "json-lines",
    json_lines_gz: "json-lines",
    json_lines_in_shards: "json-lines",
    json_lines_in_json: "json-lines",
    json_object: "json-object",
    parquet_any_name: "parquet",
    parquet_in_small_groups: "parquet",
    parquet_with_dictionaries: "parquet",
    parquet_with_files: "parquet",
    parquet_with_messages: "parquet",
    arrow: "arrow",
    webdataset: "webdataset",
    webdataset_gz: "webdataset",
}


def as_sharegpt(row: Row, images: Images) -> Row:
    """Name the turns as ShareGPT does."""
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[turn["role"]], "value": turn["content"]} for turn in row["conversation"]]
    return {"id": row["id"], "images": row["images"], "conversations": turns}


def as_official_text(row: Row, images: Images) -> Row:
    """Hold the content of turns in `text`, which the official code reads, too."""
    turns = [{"role": turn["role"], "text": turn["content"]} for turn in row["conversation"]]
    return {"id": row["id"], "images": row["images"], "conversation": turns}


def as_m4(row: Row, images: Images) -> Row:
    """Name id and images as M4-Instruct does."""
    return {"sample_id": row["id"], "image": row["images"], "conversations": row["conversation"]}


def as_messages(row: Row, images: Images) -> Row:
    """Hold the turns in `messages`."""
    return {"id": row["id"], "images": row["images"], "messages": row["conversation"]}


def as_trl(row: Row, images: Images) -> Row:
    """Hold the turns in content parts, and the images beside them."""
    turns = [turn | {"content": _parts(turn["content"], [])} for turn in row["conversation"]]
    return {"id": row["id"], "images": row["images"], "messages": turns}


def as_openai(row: Row, images: Images) -> Row:
    """Images as data URIs in the turns."""
    left = [f"data:image/jpeg;base64,{base64.b64encode(images[path]).decode()}" for path in row["images"]]
    return {
        "id": row["id"],
        "messages": [turn | {"content": _parts(turn["content"], left)} for turn in row["conversation"]],
    }


def as_query(row: Row, images: Images) -> Row:
    """Hold the last exchange in `query` and `response`."""
    said = [turn["content"] for turn in row["conversation"]]
    history = [said[at : at + 2] for at in range(0, len(said) - 2, 2)]
    return {"id": row["id"], "images": row["images"], "query": said[-2], "response": said[-1], "history": history}


def as_instruction(row: Row, images: Images) -> Row:
    """Hold the last question in `instruction` and `input`."""
    found = as_query(row, images)
    first, newline, rest = found.pop("query").partition("\n")
    return found | {"instruction": first, "input": rest if newline else "", "output": found.pop("response")}


def as_texts(row: Row, images: Images) -> Row:
    """Hold the exchanges in `texts`."""
    said = [turn["content"] for turn in row["conversation"]]
    pairs = [{"user": said[at], "assistant": said[at + 1], "source": "x"} for at in range(0, len(said), 2)]
    return {"id": row["id"], "images": row["images"], "texts": pairs}


def as_completion(row: Row, images: Images) -> Row:
    """Hold the last answer in `completion`."""
    turns = row["conversation"]
    return {"id": row["id"], "images": row["images"], "prompt": turns[:-1], "completion": turns[-1:]}


def as_base64(row: Row, images: Images) -> Row:
    """Hold images as mappings of bytes, in Base64, and path."""
    embedded = [{"bytes": base64.b64encode(images[path]).decode(), "path": path} for path in row["images"]]
    return {"id": row["id"], "images": embedded, "conversation": row["conversation"]}


ROW_WRITERS: dict[Callable[[Row, Images], Row], str] = {
    as_sharegpt: "conversation",
    as_official_text: "conversation",
    as_m4: "conversation",
    as_messages: "messages",
    as_trl: "messages",
    as_openai: "messages",
    as_query: "query",
    as_instruction: "instruction",
    as_texts: "texts",
    as_completion: "completion",
    as_base64: "conversation",
}


def _parts(content: str, left: list[str]) -> list[dict[str, Any]]:
    """The content in parts; each image takes the first of `left`, if there is one."""
    parts: list[dict[str, Any]] = []
    for piece in re.split(f"({MARK})", content):
        if piece == MARK:
            parts.append({"type": "image_url", "image_url": {"url": left.pop(0)}} if left else {"type": "image"})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _table(rows: Rows, images: Images) -> pa.Table:
    made = [row | {"images": [{"bytes": images[path], "path": path} for path in row["images"]]} for row in rows]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("id", pa.string()), ("images", pa.list_(image)), ("conversation", pa.list_(turn))])
    return pa.Table.from_pylist(made, schema=schema)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
