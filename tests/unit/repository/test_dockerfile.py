"""The Dockerfile as text: what a build without GPUs, in CI, cannot show. tests/cluster/test_image.py runs the image."""

import re

from tests.helpers.paths import ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
STAGES = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)


def stage(name: str) -> str:
    """The text of a stage."""
    return re.split(r"^FROM ", DOCKERFILE.partition(f" AS {name}\n")[2], flags=re.MULTILINE)[0]


def test_the_image_has_the_libraries_that_nccl_opens() -> None:
    for library in ("libibverbs1", "ibverbs-providers", "librdmacm1"):
        assert library in stage("base")


def test_flash_attn_is_compiled_for_a100_alone_and_may_be_left_out() -> None:
    compiled = stage("compiled")
    assert "FLASH_ATTN_CUDA_ARCHS=80" in compiled
    assert 'if [ -n "$FLASH_ATTN" ]' in compiled
    assert "MAX_JOBS=" not in compiled  # setup.py starts as many compilers as memory allows


def test_a_step_without_a_gpu_sees_none() -> None:
    assert "NVIDIA_VISIBLE_DEVICES=void" in stage("code")


def test_make_images_builds_every_image_and_no_stage_is_unused() -> None:
    (built,) = re.findall(r"^\tfor target in (.+); do", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (default,) = re.findall(r"^ARG TARGET=(\w+)$", DOCKERFILE, re.MULTILINE)
    assert default in built.split()
    for name in STAGES:
        used = f"FROM {name} " in DOCKERFILE or f"--from={name} " in DOCKERFILE
        assert used != (name in built.split()), name
