"""Downloads files of a dataset of the Hugging Face hub over several connections.

A file is fetched in parts of PART bytes. Each part is a file in the staging folder until its file is complete. So a
broken or stopped download continues at its last byte.
"""

import os
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from mantis.errors import InputError, IntegrityError
from mantis.hashing import fingerprint, sha256_file
from mantis.progress import Progress

HUB = "https://huggingface.co"
CONNECTIONS = 8
PART = 32 << 20  # bytes
BLOCK = 1 << 18  # bytes
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # consecutive attempts without a new byte, after which a part fails
PAUSE = 1.0  # seconds before the second attempt; each further pause is twice as long
DENIED = (401, 403)
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class BenchmarkFile:
    """A file on the hub. `sha256` is empty for a file that the hub keeps in git itself, without LFS."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class HubDownload:
    """A download of files of one revision of a dataset. `staging` keeps the bytes of unfinished files."""

    dataset: str
    revision: str
    staging: Path
    progress: Progress
    _stop: threading.Event = field(default_factory=threading.Event, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def files(self, wanted: Sequence[BenchmarkFile]) -> Iterator[tuple[BenchmarkFile, Path]]:
        """Yield each file with its path in the staging folder, in order. The path is deleted afterwards.

        Raises:
            InputError: the hub refuses access, lacks a file, or sends no byte for ATTEMPTS attempts.
            IntegrityError: a file does not have the hash that the hub lists.
        """
        self.staging.mkdir(parents=True, exist_ok=True)
        ahead: deque[tuple[BenchmarkFile, list[Future[Path]]]] = deque()
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="hub")
        try:
            for file in wanted:
                ahead.append((file, [pool.submit(self._part, file, start) for start in _starts(file)]))
                while sum(len(parts) for _, parts in ahead) > 2 * CONNECTIONS:
                    yield from self._whole(*ahead.popleft())
            while ahead:
                yield from self._whole(*ahead.popleft())
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
        shutil.rmtree(self.staging, ignore_errors=True)

    def _whole(self, file: BenchmarkFile, parts: list[Future[Path]]) -> Iterator[tuple[BenchmarkFile, Path]]:
        first, *others = [part.result() for part in parts]
        with first.open("ab") as target:
            for other in others:
                with other.open("rb") as source:
                    shutil.copyfileobj(source, target, BLOCK)
                other.unlink()
        try:
            if file.sha256 and sha256_file(first) != file.sha256:
                raise IntegrityError(
                    f"{file.name} does not have the SHA-256 that the hub lists.", remedy="Run the same command again."
                )
            yield file, first
        finally:
            first.unlink(missing_ok=True)

    def _part(self, file: BenchmarkFile, start: int) -> Path:
        """Fetch the part of `file` that begins at `start`, and return its path. It continues an earlier attempt."""
        size = min(PART, file.size - start)
        path = self.staging / f"{fingerprint([file.name, file.sha256, file.size])[:16]}-{start}"
        with path.open("ab") as target:
            target.truncate(min(target.tell(), size))  # longer if joining the parts was interrupted
            have = target.seek(0, os.SEEK_END)
            self._advance(have)
            attempts = 0
            while have < size:
                got, problem = self._receive(file, start + have, start + size, target)
                have, attempts = have + got, 0 if got else attempts + 1
                if problem and attempts == ATTEMPTS:
                    raise InputError(
                        f"The download of {file.name} broke off at byte {start + have:,}: {problem}.",
                        remedy="Run the same command again. It continues where it stopped.",
                    )
                if problem and self._stop.wait(PAUSE * 2**attempts):
                    break
        return path

    def _receive(self, file: BenchmarkFile, start: int, stop: int, target: IO[bytes]) -> tuple[int, str]:
        """Append the bytes from `start` to `stop` to `target`. Returns their number and the problem, if any."""
        got = 0
        try:
            path = f"/datasets/{self.dataset}/resolve/{self.revision}/{file.name}"
            with open_hub(path, start=start, stop=stop) as answer:
                while (block := answer.read(min(BLOCK, stop - start - got))) and not self._stop.is_set():
                    target.write(block)
                    got += len(block)
                    self._advance(len(block))
        except TransientHubError as error:
            return got, error.problem
        except (OSError, HTTPException) as error:
            return got, str(error) or type(error).__name__
        return got, "" if got == stop - start else "the connection ended"

    def _advance(self, amount: int) -> None:
        with self._lock:
            self.progress.advance(amount)


def _starts(file: BenchmarkFile) -> range:
    return range(0, max(file.size, 1), PART)


class TransientHubError(InputError):
    """The hub cannot be reached or is busy. A later attempt may succeed."""


class RefusedByHubError(InputError):
    """The hub refuses access, or has no such dataset, revision or file."""


def open_hub(path: str, *, start: int = 0, stop: int | None = None) -> HTTPResponse:
    """Open `path` of the hub, from byte `start` to byte `stop`. HF_ENDPOINT sets another hub, HF_TOKEN gives access.

    Raises:
        TransientHubError: the hub cannot be reached, or is busy.
        RefusedByHubError: the hub refuses access, or has nothing at `path`.
    """
    root = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    request = urllib.request.Request(root + urllib.parse.quote(path, safe="/?=&"))
    if token := os.environ.get("HF_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if stop is not None:
        request.add_header("Range", f"bytes={start}-{stop - 1}")
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        skip = start if answer.status == 200 else 0  # a server without support for ranges sends the whole file
        while skip:
            skip -= len(answer.read(min(skip, BLOCK))) or skip
        return answer
    except urllib.error.HTTPError as error:
        problem = f"{root} refused {path}: {error.code} {error.reason}."
        if error.code in TRANSIENT:
            raise TransientHubError(problem, remedy="Run the same command again later.") from None
        gated = error.code in DENIED
        remedy = "Accept the dataset's terms on its page and set HF_TOKEN." if gated else "Check the dataset's name."
        raise RefusedByHubError(problem, remedy=remedy) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TransientHubError(
            f"{root} cannot be reached: {reason}.",
            remedy="Fetch into the same store from a machine with network access, or copy the files into "
            "<evaluation.source>/<benchmark>/.",
        ) from None
