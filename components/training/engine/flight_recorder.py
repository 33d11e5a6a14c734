"""torch's flight recorder: the last collectives of each rank, in memory, and in a file once a rank waits too long.

The recorder knows which collective a rank entered and never left. torch writes its own file where NCCL's timeout ends a
rank. The watchdog is faster, so it stores a file of its own (monitoring/watchdog.py).
"""

import logging
import os
import tempfile
import threading
from pathlib import Path

import torch
from torch._C import _distributed_c10d as c10d

from mantis.errors import MantisError
from mantis.store.base import ObjectStore

logger = logging.getLogger(__name__)

COLLECTIVES = 2000  # the last ones that each rank remembers; torch's own default
STORE_SECONDS = 20.0  # a rank that waits ends after this time even if the store is away
DUMP_OF_NCCL = "TORCH_FR_DUMP_TEMP_FILE"  # torch writes this file, with the rank behind its name, if NCCL gives up


def record_collectives() -> None:
    """Switch the recorder on. Call it before the process group is made; a user's own settings stay.

    The file of NCCL has the process in its name, because several trainings may share the machine.
    """
    dump = Path(tempfile.gettempdir()) / f"mantis-{os.getpid()}-collectives-rank-"
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(COLLECTIVES))
    os.environ.setdefault(DUMP_OF_NCCL, str(dump))
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")


def dump_of_nccl(rank: int) -> str:
    """The file that torch writes if NCCL's own timeout ends this rank. The recorder has to be on."""
    return os.environ[DUMP_OF_NCCL] + str(rank)


def collectives(device: torch.device) -> bytes:
    """The remembered collectives of this rank, oldest first, as JSON; `state` says how far each one came."""
    recorded: bytes = c10d._dump_nccl_trace_json() if device.type == "cuda" else c10d._dump_fr_trace_json()  # type: ignore[attr-defined]
    return recorded


def leave_dump(store: ObjectStore, prefix: str, *, rank: int, device: torch.device) -> str:
    """Store the collectives below `prefix`; return where they lie. It takes STORE_SECONDS at most.

    They lie in a local file if the store is away.
    """
    recorded = collectives(device)
    key = f"{prefix}/hangs/rank-{rank:05d}.json"
    done = threading.Event()

    def put() -> None:
        try:
            store.put(key, recorded)
            done.set()
        except MantisError as error:
            logger.warning("The collectives of this rank are not stored: %s", error)

    thread = threading.Thread(target=put, name="flight-recorder", daemon=True)
    thread.start()
    thread.join(STORE_SECONDS)
    if done.is_set():
        return store.uri(key)
    with tempfile.NamedTemporaryFile(prefix=f"mantis-hang-rank-{rank:05d}-", suffix=".json", delete=False) as file:
        file.write(recorded)
    return file.name
