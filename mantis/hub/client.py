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

    huggingface_hub downloads whole files alone, so this is the one request that is made here.

    Raises:
        InputError: the connection breaks ATTEMPTS times without a new byte.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    data, attempts = bytearray(), 0
    while len(data) < length:
        attempts += 1
        if attempts > ATTEMPTS:
            raise InputError(
                f"{repository.name}/{remote.path} stops at {start + len(data):,} of {remote.size:,} bytes.",
                remedy="Repeat the command later.",
            )
        try:
            for block in _stream(repository, commit, remote, start + len(data), start + length):
                data += block
                attempts = 0
        except HfHubHTTPError:
            raise
        except HTTPError as error:
            logger.warning(
                "%s: the connection broke after %d bytes. The download continues: %s", remote.name, len(data), error
            )
    return bytes(data)


def _stream(repository: Repository, commit: str, remote: HubFile, start: int, end: int) -> Iterator[bytes]:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(repository.name, remote.path, repo_type=repository.kind, revision=commit, endpoint=endpoint())
    headers = build_hf_headers() | {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        skip = start if response.status_code == 200 else 0  # a server without support for ranges sends the whole file
        left = end - start
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
        LocalEntryNotFoundError,
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
        raise _refused(repository, error.response.status_code) from None
    except LocalEntryNotFoundError as error:  # hf_hub_download found out neither hash nor size of a file
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refused(repository, cause.response.status_code) from None
        raise _away(repository, cause or error) from None
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise _away(repository, error) from None
        if error.errno is None:  # huggingface_hub's own: too few bytes came
            raise InputError(
                f"{where} sent a file of {repository.name} wrongly: {str(error).splitlines()[0]}.",
                remedy="Repeat the command. Complete files are kept.",
            ) from None
        full = error.errno == errno.ENOSPC
        raise StoreError(
            f"{error.filename or 'The disk'} cannot be written: {error.strerror}.",
            remedy="Free space, then repeat the command." if full else "Check the folder's permissions.",
        ) from None
    except HTTPError as error:
        raise _away(repository, error) from None


def _refused(repository: Repository, status: int) -> InputError:
    denied = status in (401, 403)
    return InputError(
        f"{endpoint()} answered with status {status} for {repository.name}.",
        remedy=f"Accept the terms at {repository.page} and set HF_TOKEN."
        if denied
        else "Repeat the command later. Complete files are kept.",
    )


def _away(repository: Repository, error: BaseException) -> InputError:
    return InputError(
        f"{endpoint()} cannot be reached: {error}.",
        remedy="Check the network, or set HF_ENDPOINT to a mirror. Without a network: "
        f"{repository.aside} Fetched files are kept. Repeat the command to continue.",
    )
