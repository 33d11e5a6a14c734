"""What a server needs from its node: what a platform asks for, and what follows from the model's size."""

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from mantis.artifacts.manifest import Manifest
from mantis.errors import ConfigError

MIB, GIB = 2**20, 2**30
CPU_BYTES = 4  # of a parameter: a CPU computes in fp32
WIDENED = CPU_BYTES // 2  # bytes in memory for a byte of weights in bf16
# Python with torch, the bodies of open requests (512 MB), two images of 64 megapixels that are decoded, and a batch.
# Measured: docs/reference/sizing.md, "A server".
RESERVE = 3 * GIB
SCRATCH = 1 * GIB  # of /tmp beside the copy of the model
START_SECONDS = 300  # for the start of Python, and the loading of a small model
BYTES_PER_SECOND = 50e6  # at which a slow store and a slow disk hand over the weights


class ServerResources(BaseModel):
    """What an operator gives to the pods of a server: the entry `serve` of a platform file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str = "1"
    memory: str | None = None
    gpus: int = Field(0, ge=0, le=1)
    node_selector: dict[str, str] = {}
    queue: str = ""


@dataclass(frozen=True, kw_only=True)
class ServerNeeds:
    """What the size of a model asks for.

    Args:
        memory: of the host, in bytes. With a GPU, its memory holds the weights, and the host's holds them once.
        scratch: of the node's disk, in bytes.
        start_seconds: in which a server has to answer.
    """

    memory: int
    scratch: int
    start_seconds: int


def needs_of_model(model: Manifest, *, gpus: int) -> ServerNeeds:
    """What a server of this model needs.

    Raises:
        ConfigError: the model has no weights in the store.
    """
    weights = sum(file.size for file in model.files if file.name.endswith(".safetensors"))
    if not weights:
        raise ConfigError(f"{model.key} holds no *.safetensors.", remedy="Name a model whose weights lie in the store.")
    parameters = model.summary.get("parameters")
    in_fp32 = CPU_BYTES * int(parameters) if parameters else WIDENED * weights
    files = sum(file.size for file in model.files)
    return ServerNeeds(
        memory=(weights if gpus else in_fp32) + RESERVE,
        scratch=files + SCRATCH,
        start_seconds=START_SECONDS + math.ceil(files / BYTES_PER_SECOND),
    )


def mebibytes(amount: int) -> str:
    """A number of bytes as a quantity of Kubernetes, rounded up."""
    return f"{math.ceil(amount / MIB)}Mi"
