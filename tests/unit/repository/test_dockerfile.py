"""The Dockerfile as text: what a build without GPUs, in CI, cannot show. tests/cluster/test_image.py runs the image."""

import re

from tests.helpers.paths import ROOT

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
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
    (images,) = re.findall(r"^\tfor target in (.+); do", MAKEFILE, re.MULTILINE)
    (default,) = re.findall(r"^ARG TARGET=(\w+)$", DOCKERFILE, re.MULTILINE)
    assert default in images.split()
    built = {*images.split(), *re.findall(r"build --target (\w+)", MAKEFILE)}
    for name in STAGES:
        used = f"FROM {name} " in DOCKERFILE or f"--from={name} " in DOCKERFILE
        assert used != (name in built), name


def test_bases_have_digests() -> None:
    for variable, text in (("ARG BASE=", DOCKERFILE), ("CUDA_BASE := ", MAKEFILE), ("CUDA_COMPILER := ", MAKEFILE)):
        (base,) = re.findall(rf"^{variable}(\S+)$", text, re.MULTILINE)
        assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(stages) <= {"${BASE}", "${COMPILER}", "${TARGET}", "scratch", *STAGES}


def test_packages_are_in_a_virtual_environment() -> None:
    assert "python3 -m venv /opt/venv" in stage("base")
    assert "PATH=/opt/venv/bin:$PATH" in stage("base")
    assert "break-system-packages" not in DOCKERFILE.lower().replace("_", "-")


def test_each_image_comes_with_an_sbom_and_its_licences() -> None:
    for program in ("cyclonedx-py environment", "pip-licenses --python", "dpkg-query"):
        assert program in stage("listed")
    assert "--target inventory --output type=local,dest=build/" in MAKEFILE
