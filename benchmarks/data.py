"""Prepare images and text for a model, with one call of transformers' processor or tokenizer per sample as peer."""

import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.real import enlarged, jpegs, raw_rows
from benchmarks.rows import Row, meets

logger = logging.getLogger(__name__)

REPEATS = 5
EDGE = 384
LARGE = 3_000_000  # pixels
DECODE_GOAL, LARGE_GOAL, DIFFERENCE_GOAL = ">=5", ">=3.5", "<=1.001"
SHARE_GOAL = ">=0.75"  # of the speed of the JPEG decoder alone
TOKENIZE_GOAL = ">=2"
VOCABULARY = 16_000
BATCH = 64

Work = Callable[[], Any]


def decode(full: bool) -> Row:
    """Measure images per second of one core, from a JPEG's bytes to normalized pixels of 384 x 384, bilinear."""
    import torch

    torch.set_num_threads(1)
    real = jpegs()
    if not full:
        real = real[:100]
    large = [enlarged(image, pixels=LARGE) for image in real[:: len(real) // (40 if full else 10)]]
    found = {"real": _decode(real, DECODE_GOAL), "3 MP": _decode(large, LARGE_GOAL)}
    return Row(
        name="data.decode",
        peer=found["real"]["peer"],
        ours=found["real"]["ours"],
        ratio=found["real"]["ratio"],
        unit="images/s per core",
        goal=DECODE_GOAL,
        details={
            "peer": "transformers Idefics2ImageProcessorPil, one image per call",
            "limit": "the JPEG decoder and the first pass of the antialiased resize; normalization takes a tenth",
            "sizes": found,
        },
    )


def _decode(images: Sequence[bytes], goal: str) -> dict[str, Any]:
    import simplejpeg
    from PIL import Image
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    from mantis.images.preprocessing import Normalization, normalize, resize_square

    processor = Idefics2ImageProcessorPil(size={"height": EDGE, "width": EDGE}, do_image_splitting=False)
    norm = Normalization(mean=tuple(processor.image_mean), std=tuple(processor.image_std))

    def peer(image: bytes) -> Any:
        with Image.open(io.BytesIO(image)) as opened:
            return processor([[opened]], return_tensors="pt").pixel_values[0]

    def ours(image: bytes) -> Any:
        return normalize(resize_square([image], EDGE, "bilinear"), norm)

    std = processor.image_std[0]
    difference = max(float((peer(image) - ours(image)).abs().max()) * std * 255 for image in images)
    seconds = _alternate(
        {
            "peer": lambda: _each(peer, images),
            "ours": lambda: _each(ours, images),
            "decoding alone": lambda: _each(partial(simplejpeg.decode_jpeg, colorspace="RGB"), images),
            "decoding and resizing": lambda: _each(lambda image: resize_square([image], EDGE, "bilinear"), images),
            "decoding and narrowing": lambda: _each(_narrowed, images),
        },
        clock=time.process_time,
    )
    ratio, share = seconds["peer"] / seconds["ours"], seconds["decoding alone"] / seconds["ours"]
    return {name: len(images) / value for name, value in seconds.items()} | {
        "ratio": ratio,
        "goal": goal,
        "met": meets(ratio, goal),
        "share_of_decoder": share,
        "share_goal": SHARE_GOAL,
        "share_met": meets(share, SHARE_GOAL),
        "share_without_normalizing": seconds["decoding alone"] / seconds["decoding and resizing"],
        "share_without_second_pass": seconds["decoding alone"] / seconds["decoding and narrowing"],
        "difference_of_255": difference,
        "difference_met": meets(difference, DIFFERENCE_GOAL),
        "images": len(images),
        "megapixels": sum(_pixels(image) for image in images) / len(images) / 1e6,
    }


def _narrowed(image: bytes) -> Any:
    """Only the first pass of the resize, over rows: an upper bound for whatever uses this kernel."""
    import simplejpeg
    import torch
    from torch.nn.functional import interpolate

    pixels = simplejpeg.decode_jpeg(image, colorspace="RGB")
    planes = torch.from_numpy(pixels).unsqueeze(0).permute(0, 3, 1, 2)
    return interpolate(planes, size=(len(pixels), EDGE), mode="bilinear", antialias=True, align_corners=False)


def _each(work: Callable[[bytes], Any], images: Sequence[bytes]) -> None:
    for image in images:
        work(image)  # the result is dropped: keeping gigabytes would measure page faults of the kernel


def _pixels(image: bytes) -> int:
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(image)[:2]
    return int(height * width)


def tokenize(full: bool) -> Row:
    """Measure samples per second: one tokenizer call per sample, and ours with labels and lengths on all cores."""
    from components.data.mixture.lengths import Counter, LengthPool
    from mantis.config.model_settings import ModelSettings
    from mantis.dataset.mixture_reader import conversation_of
    from mantis.models.processing.chat_templates import load_chat_template, render
    from mantis.models.processing.tokenizer_training import train_tokenizer
    from mantis.models.registry import family

    settings = ModelSettings(family="llava-siglip", prompt="llama3")
    rows = [_as_prepared(row) for row in raw_rows()] * (20 if full else 4)
    style = load_chat_template(settings.prompt)
    pieces = [render(conversation_of(row), style) for row in rows]
    texts = [style.first + "".join(piece.text for piece in sample) for sample in pieces]
    cores = len(os.sched_getaffinity(0))
    with LengthPool(cores) as pool, LengthPool(1) as single, tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(
            texts, vocabulary=VOCABULARY, special_tokens=family(settings.family).special_tokens()
        )
        tokenizer.save_pretrained(folder)
        counter = Counter(model=settings, tokenizer_folder=folder, context_length=1_000_000, learn="all")
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

        def peer() -> list[int]:
            return [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]

        def ours(processes: LengthPool) -> list[Any]:
            return [length for _, lengths in processes.count(counter, batches) for length in lengths]

        expanded = [(length.tokens - length.patches + length.images) for length in ours(pool)]
        if peer() != expanded or ours(single) != ours(pool):
            raise RuntimeError("peer and ours count different tokens")
        seconds = _alternate({"peer": peer, "ours": lambda: ours(pool), "one process": lambda: ours(single)})
    rates = {name: len(rows) / value for name, value in seconds.items()}
    return Row(
        name="data.tokenize",
        peer=rates["peer"],
        ours=rates["ours"],
        ratio=rates["ours"] / rates["peer"],
        unit="samples/s",
        goal=TOKENIZE_GOAL,
        details={
            "peer": "PreTrainedTokenizerFast, one call per sample, no labels",
            "limit": "the tokenizer's regular expression and merges: 90 % of a core's time, so only more cores help",
            "cores": cores,
            "one process": rates["one process"],
            "samples": len(rows),
            "tokens": sum(expanded),
        },
    )


def _as_prepared(row: dict[str, Any]) -> dict[str, Any]:
    """Return a raw row in the form of data.lance, without the images."""
    contents = [turn["content"] for turn in row["conversation"]]
    edges = [EDGE] * "".join(contents).count("<image>")
    roles = [turn["role"] for turn in row["conversation"]]
    learned = [True] * len(roles)
    return {
        "id": row["id"], "roles": roles, "contents": contents, "learned": learned, "widths": edges, "heights": edges,
    }  # fmt: skip


def _alternate(works: dict[str, Work], *, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return the median seconds of each work, measured in turn REPEATS times after one warm-up."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(REPEATS + 1):
        logger.info("Round %d of %d", repeat, REPEATS)
        for name, work in works.items():
            start = clock()
            with contextlib.redirect_stderr(io.StringIO()):
                work()
            if repeat:
                found[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in found.items()}
