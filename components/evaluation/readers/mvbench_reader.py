"""MVBench: a JSON file per task, and its videos or folders of frames, unpacked or in archives.

Where each task's videos lie, and whether its rows bound a clip by `start` and `end` seconds, is in mvbench.yaml.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from components.evaluation.readers.frames import VideoError, folder_frames, video_frames
from components.evaluation.readers.media import Media
from components.evaluation.readers.raw import Raw
from mantis.errors import InputError
from mantis.progress import track

TASKS = Path(__file__).with_name("mvbench_reader.yaml")
FRAMES = 8


def raw_rows(folder: Path, *, pictures: bool) -> Iterator[Raw]:
    """Every row of every task, `task` and `id` (its place there) added, with FRAMES frames as its images.

    Raises:
        InputError: a task's file is missing or no JSON list.
    """
    described = yaml.safe_load(TASKS.read_text())
    media = Media(folder)
    rows = [(task, place, row) for task in described["tasks"] for place, row in enumerate(_rows(folder, task))]
    numbered = track(rows, label="MVBench", total=len(rows), unit="videos") if pictures else iter(rows)
    for task, place, row in numbered:
        raw = {**row, "task": task, "id": f"{task}-{place}"}
        origin = f"{folder / 'json' / task}.json, row {place}"
        if not pictures:
            yield Raw(origin=origin, row=raw)
            continue
        shown, missing = _frames(media, described["tasks"][task], row, described["frames_per_second"])
        yield Raw(origin=origin, row={**raw, "frames": shown}, missing=missing)


def _frames(media: Media, task: dict[str, Any], row: dict[str, Any], fps: float) -> tuple[list[bytes], str]:
    path = f"{task['videos']}/{row.get('video')}"
    bound = (float(row["start"]), float(row["end"])) if task["bounds"] else None
    if task["type"] == "frames":
        names = media.folder(path)
        if not names:
            return [], "video-missing"
        chosen = folder_frames(names, count=FRAMES, bound=bound, fps=fps)
        return [media.read(name) or b"" for name in chosen], ""
    data = media.read(path)
    if data is None:
        return [], "video-missing"
    try:
        return video_frames(data, count=FRAMES, bound=bound), ""
    except VideoError:
        return [], "video-unreadable"


def _rows(folder: Path, task: str) -> list[dict[str, Any]]:
    file = folder / "json" / f"{task}.json"
    try:
        rows = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{file} is missing.", remedy="Fetch it: mantis benchmark fetch mvbench.") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.", remedy="Fetch it again.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file} holds no list of rows.", remedy="Fetch it again.")
    return rows
