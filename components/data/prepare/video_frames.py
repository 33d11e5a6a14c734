"""Takes evenly spaced frames of a video, as the official code does for its chat-video data."""

import math
from functools import partial

from components.data.sources.rejection import RowRejected
from components.data.sources.source import ImageSource
from mantis.images.video import FramePixelsError, VideoError, decode_frames


def frame_places(total: int, fps: float, *, count: int) -> list[int]:
    """The frames that stand for a video of `total` frames: all of them, or every k-th for the smallest whole k.

    So there may be fewer than `count`: for a count of 8, every 13th of 90 frames makes 7. The arithmetic is that of
    TIGER-AI-Lab/Mantis, mantis/train/data.py, ChatVideoDataset.getitem.
    """
    return list(range(0, total, max(1, math.ceil(total / count))))


def read_frames(
    images: ImageSource, path: str, *, count: int, max_bytes: int, max_pixels: int
) -> list[tuple[str, bytes]]:
    """Read at most `count` frames of the video at `path`. Returns each one's name and JPEG bytes.

    Raises:
        RowRejected: the video is missing, too large, or cannot be decoded.
    """
    try:
        data = images.read(path, max_bytes=max_bytes)
    except RowRejected as refusal:
        if refusal.reason != "image-bytes":
            raise
        raise RowRejected("video-bytes", value=refusal.value, threshold=refusal.threshold) from None
    try:
        frames = decode_frames(data, partial(frame_places, count=count), max_pixels=max_pixels)
    except FramePixelsError as error:
        raise RowRejected("image-pixels", value=f"{path}: {error.found}", threshold=str(max_pixels)) from None
    except VideoError as error:
        raise RowRejected("video-broken", value=f"{path}: {error}") from None
    return [(f"{path}#{number + 1}", frame) for number, frame in enumerate(frames)]
