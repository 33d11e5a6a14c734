"""Access the Hugging Face hub: list files, read bytes from any position, and explain errors."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mantis.errors import InputError, StoreError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
ATTEMPTS = 5  # consecutive attempts without a new byte, after which a broken download fails


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the hub; `aside` describes how its files can be copied without a network."""

    name: str
    kind: Literal["dataset", "model"]
    aside: str

    @property
    def page(self) -> str:
        """The web page on which its terms can be accepted."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of the hub. Large files have `sha256`, small ones have `git`, the id of their blob; the other is empty."""

    path: str
    size: int
    sha256: str
    git: str

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return self.path.rpartition("/")[2]

    def holds(self, sha256: str, git: str) -> bool:
        """Whether these are the hashes of the file's content."""
        return sha256 == self.sha256 if self.sha256 else git == self.git


def endpoint() -> str:
    """Return the address of the hub, or of its mirror if HF_ENDPOINT is set."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def newest_commit(repository: Repository, revision: str) -> str:
    """Resolve `revision` (a branch, tag or commit) to its current commit."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    return str(api.repo_info(repository.name, revision=revision, repo_type=repository.kind).sha)


def list_files(repository: Repository, commit: str, folder: str = "") -> list[HubFile]:
    """List the files directly in `folder` at a commit, sorted by name."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint())
    entries = api.list_repo_tree(repository.name, folder or None, revision=commit, repo_type=repository.kind)
    found = [_hub_file(entry) for entry in entries if isinstance(entry, RepoFile)]
    return sorted(found, key=lambda remote: remote.name)


def list_tree(repository: Repository, commit: str, folder: str = "") -> list[HubFile]:
    """List every file below `folder` at a commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint())
    entries = api.list_repo_tree(
        repository.name, folder or None, recursive=True, revision=commit, repo_type=repository.kind
    )
    return [_hub_file(entry) for entry in entries if isinstance(entry, RepoFile)]


def _hub_file(entry: "RepoFile") -> HubFile:
    sha256 = entry.lfs.sha256 if entry.lfs else ""
    return HubFile(path=entry.path, size=entry.size, sha256=sha256, git=entry.blob_id)


def read_range(repository: Repository, commit: str, remote: HubFile, start: int, length: int) -> bytes:
    """Read `length` bytes of a file from position `start` on; a broken connection is resumed at its last byte.

    Raises:
        InputError: the connection breaks ATTEMPTS times without a new byte.
    """
    return b"".join(file_blocks(repository, commit, remote, start, end=start + length))


def file_blocks(
    repository: Repository, commit: str, remote: HubFile, have: int, *, end: int | None = None
) -> Iterator[bytes]:
    """Yield the file's bytes from position `have` to `end` (None: to its end).

    A broken connection is resumed at its last byte.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    attempts = 0
    last = remote.size if end is None else end
    while have < last:
        attempts += 1
        if attempts > ATTEMPTS:
            raise InputError(
                f"{repository.name}/{remote.path} stops at {have:,} of {remote.size:,} bytes.",
                remedy="Repeat the command later: the download continues at this byte.",
            )
        try:
            for block in _stream(repository, commit, remote, have, end):
                attempts = 0
                have += len(block)
                yield block
        except HfHubHTTPError:
            raise
        except HTTPError as error:
            logger.warning(
                "%s: the connection broke after %d bytes. The download continues: %s", remote.name, have, error
            )


def _stream(repository: Repository, commit: str, remote: HubFile, have: int, end: int | None) -> Iterator[bytes]:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(repository.name, remote.path, repo_type=repository.kind, revision=commit, endpoint=endpoint())
    headers = build_hf_headers() | {
        "Accept-Encoding": "identity",
        "Range": f"bytes={have}-{'' if end is None else end - 1}",
    }
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        skip = have if response.status_code == 200 else 0  # a server without support for ranges sends the whole file
        left = remote.size - have if end is None else end - have
        for block in response.iter_raw():
            kept = block[skip : skip + left]
            skip = max(0, skip - len(block))
            left -= len(kept)
            if kept:
                yield kept
            if not left:
                return


@contextmanager
def hub_errors(repository: Repository) -> Iterator[None]:
    """Turn the hub's errors into errors with a remedy."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = endpoint()
    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"{repository.name} is gated: its owners require that you accept their terms.",
            remedy=f"Accept the terms at {repository.page}, create a token there, and set HF_TOKEN.",
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{where} has no public {repository.kind} {repository.name}: it is private, or was moved.",
            remedy="Set HF_TOKEN to your token if you have access.",
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{repository.name} has no such revision.",
            remedy="Set --revision to a branch, tag or commit, or leave it out.",
        ) from None
    except HfHubHTTPError as error:
        raise InputError(
            f"{where} answered with status {error.response.status_code} for {repository.name}.",
            remedy="Repeat the command later: the download continues where it stopped.",
        ) from None
    except OSError as error:
        if not isinstance(error, ConnectionError | TimeoutError):
            full = error.errno == errno.ENOSPC
            raise StoreError(
                f"{error.filename or 'The disk'} cannot be written: {error.strerror}.",
                remedy="Free space, then repeat the command." if full else "Check the folder's permissions.",
            ) from None
        raise _away(repository, error) from None
    except HTTPError as error:
        raise _away(repository, error) from None


def _away(repository: Repository, error: Exception) -> InputError:
    return InputError(
        f"{endpoint()} cannot be reached: {error}.",
        remedy="Check the network, or set HF_ENDPOINT to a mirror. Without a network: "
        f"{repository.aside} Fetched files are kept. Repeat the command to continue.",
    )
