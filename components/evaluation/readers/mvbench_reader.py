"""Reads MVBench: a JSON file per task, and videos or frame folders, unpacked or in archives.

mvbench_reader.yaml names the folder of each task's videos. It also marks the tasks whose rows limit the video to a clip
from `start` to `end`, in seconds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.readers.frames import Bound, folder_frames, video_frames
from components.evaluation.readers.media import Media, MediaError
from components.evaluation.readers.raw import Raw
from mantis.config.bounded_yaml import parse_yaml
from mantis.errors import InputError
from mantis.images.video import VideoError
from mantis.progress import track

TASKS = Path(__file__).with_name("mvbench_reader.yaml")
FRAMES = 8


def raw_rows(folder: Path, *, pictures: bool) -> Iterator[Raw]:
    """Yield every row of every task, with FRAMES frames as its images.

    Each row gets its `task` and an `id`, made of the task and the row's place in it.

    Raises:
        InputError: a task's file is missing or holds no JSON list.
    """
    described = parse_yaml(TASKS.read_text())
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
    if task["type"] != "frames":
        return frames_of_video(media, path, count=FRAMES, bound=bound)
    names = media.folder(path)
    if not names:
        return [], "video-missing"
    chosen = folder_frames(names, count=FRAMES, bound=bound, fps=fps)
    try:
        return [media.image(name) or b"" for name in chosen], ""
    except MediaError as error:
        return [], f"video-{error.reason}"


def frames_of_video(media: Media, path: str, *, count: int, bound: Bound) -> tuple[list[bytes], str]:
    """Evenly spaced frames of a video, as JPEG, or none and the reason why the sample is missing."""
    try:
        with media.video(path) as file:
            return ([], "video-missing") if file is None else (video_frames(file, count=count, bound=bound), "")
    except VideoError:
        return [], "video-unreadable"
    except MediaError as error:
        return [], f"video-{error.reason}"


def _rows(folder: Path, task: str) -> list[dict[str, Any]]:
    file = folder / "json" / f"{task}.json"
    try:
        rows = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{file} is missing.", remedy="Run mantis benchmark fetch mvbench.") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.", remedy="Fetch the file again.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{file} holds no list of rows.", remedy="Fetch the file again.")
    return rows
