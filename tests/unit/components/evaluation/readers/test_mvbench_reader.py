import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.readers.benchmark_reader import read_benchmark
from components.evaluation.readers.frames import frame_indices, video_frames
from components.evaluation.readers.mvbench_reader import FRAMES
from components.evaluation.scoring.score_response import score_response
from mantis.errors import InputError
from mantis.images.video import VideoError

FPS, LENGTH = 10, 60  # a video whose frame number n is a photograph darkened to n / LENGTH


@pytest.fixture(scope="session")
def video(photographs: list[bytes]) -> bytes:
    import av

    photograph = np.asarray(Image.open(io.BytesIO(photographs[0])).convert("RGB").resize((64, 48)))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=FPS, width=64, height=48, pix_fmt="yuv420p")
        for number in range(LENGTH):
            frame = np.full_like(photograph, round(255 * number / LENGTH))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def number_of(jpeg: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(jpeg))).mean()) / 255 * LENGTH


def official_indices(bound: tuple[float, float] | None, fps: float, last: int, first: int, count: int) -> list[int]:
    """get_index of OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb, written out."""
    start, end = bound or (-100000, 100000)
    start_index, end_index = max(first, round(start * fps)), min(round(end * fps), last)
    size = (end_index - start_index) / count
    return [int(start_index + size / 2 + np.round(size * place)) for place in range(count)]


@pytest.mark.parametrize("bound", [None, (0.0, 6.0), (1.2, 3.4), (2.0, 99.0), (0.3, 0.9)])
@pytest.mark.parametrize(("last", "fps", "first"), [(59, 10.0, 0), (431, 29.97, 0), (60, 3.0, 1), (7, 3.0, 1)])
def test_frames_are_the_official_ones(bound: tuple[float, float] | None, last: int, fps: float, first: int) -> None:
    expected = official_indices(bound, fps, last, first, 8)
    found = frame_indices(count=8, last=last, fps=fps, bound=bound, first=first)
    assert found == [min(last, max(first, index)) for index in expected]


def test_a_video_gives_evenly_spaced_frames(video: bytes) -> None:
    whole = [number_of(frame) for frame in video_frames(video, count=8, bound=None)]
    assert whole == pytest.approx(frame_indices(count=8, last=LENGTH - 1, fps=FPS, bound=None), abs=1.5)
    clip = [number_of(frame) for frame in video_frames(video, count=8, bound=(2.0, 4.0))]
    assert min(clip) > 19
    assert max(clip) < 41
    for broken in (b"nothing", video[:300]):
        with pytest.raises(VideoError):
            video_frames(broken, count=8, bound=None)


@pytest.fixture
def mvbench(tmp_path: Path, video: bytes, photographs: list[bytes]) -> Path:
    """Every task with two rows; videos unpacked, in an archive, as frames, or not there."""
    benchmark = load_benchmark("mvbench")
    (tmp_path / "json").mkdir()
    (tmp_path / "spool").mkdir()
    for task in benchmark.skills:
        row = {"question": "What happens?", "candidates": ["It turns left.", "It turns right.", "Neither"],
               "answer": "It turns right.", "start": 2.0, "end": 4.0}  # fmt: skip
        rows = [row | {"video": f"{name}.mp4"} for name in ("one", "two")]
        if task == "episodic_reasoning":
            rows = [row | {"video": name} for name in ("show_clip_00", "restricted_clip")]
        (tmp_path / "json" / f"{task}.json").write_text(json.dumps(rows))
    unpacked = tmp_path / "video" / "star" / "Charades_v1_480"
    unpacked.mkdir(parents=True)
    for name in ("one", "two"):
        (unpacked / f"{name}.mp4").write_bytes(video)
    with zipfile.ZipFile(tmp_path / "video" / "clevrer.zip", "w") as archive:
        archive.writestr("clevrer/video_validation/one.mp4", video)
        archive.writestr("clevrer/video_validation/two.mp4", b"broken")
    with zipfile.ZipFile(tmp_path / "video" / "tvqa.zip", "w") as archive:
        for number in range(1, 21):
            archive.writestr(f"frames_fps3_hq/show_clip_00/{number:05d}.jpg", photographs[number % 8])
    return tmp_path


def test_mvbench_reads_what_is_there_and_counts_the_rest(mvbench: Path, photographs: list[bytes]) -> None:
    made = read_benchmark(mvbench, load_benchmark("mvbench"), spool=mvbench / "spool")
    by_id = {sample.id: sample for sample in made.samples}
    assert len(made.samples) + len(made.missing) == 40
    assert all(len(sample.pictures) == FRAMES == 8 for sample in made.samples)
    clip = [number_of(picture.load()) for picture in by_id["action_sequence-0"].pictures]
    assert 19 < min(clip) < max(clip) < 41  # start and end bound it
    whole = [number_of(picture.load()) for picture in by_id["moving_count-0"].pictures]  # from the archive
    assert max(whole) > 50
    frames = [picture.load() for picture in by_id["episodic_reasoning-0"].pictures]
    indices = frame_indices(count=8, last=20, fps=3, bound=(2.0, 4.0), first=1)
    assert frames == [photographs[index % 8] for index in indices]
    reasons = {(each.skill, each.reason) for each in made.missing}
    assert {("episodic_reasoning", "video-missing"), ("moving_count", "video-unreadable"),
            ("fine_grained_pose", "video-missing")} <= reasons  # fmt: skip


def test_mvbench_is_scored(mvbench: Path) -> None:
    made = read_benchmark(mvbench, load_benchmark("mvbench"), spool=mvbench / "spool", pictures=False)
    assert len(made.samples) == 40  # without pictures nothing can be missing
    target = made.samples[0].target
    assert target.answers == ("B",)
    said = {"B": 1, "A": 0, "Looking closely, option B fits.": 0, "(B)": 1, "b": 0, "A or B": 0,
            "I cannot see any video.": 0, "": 0, "It turns right.": 0, "Die richtige Antwort: B": 0,
            "B\nOr A?": 1, "Final Answer: A\nFinal Answer: B": 1, "Best option: (B)": 1}  # fmt: skip
    assert {response: score_response(response, target, "mvbench").official for response in said} == said


def test_mvbench_without_a_task_is_no_mvbench(mvbench: Path) -> None:
    (mvbench / "json" / "moving_count.json").unlink()
    with pytest.raises(InputError, match=r"moving_count.json.*benchmark fetch"):
        read_benchmark(mvbench, load_benchmark("mvbench"), spool=mvbench / "spool")
