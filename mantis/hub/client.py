"""The hub as far as fetching needs it: which files there are, their bytes from any place on, its errors in words."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from mantis.errors import InputError, StoreError

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
ATTEMPTS = 5  # to go on with a file after the connection broke, without a byte in between


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the hub; `aside` says how else its files can be brought, where there is no network."""

    name: str
    kind: Literal["dataset", "model"]
    aside: str

    @property
    def page(self) -> str:
        """Its page, where terms are accepted."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of the hub; `sha256` of large files, `git` (the id of its blob) of small ones."""

    path: str
    size: int
    sha256: str
    git: str

    @property
    def name(self) -> str:
        """Its name within its folder."""
        return self.path.rpartition("/")[2]

    def holds(self, sha256: str, git: str) -> bool:
        """Whether these are the hashes of its bytes."""
        return sha256 == self.sha256 if self.sha256 else git == self.git


def endpoint() -> str:
    """The hub's address, or its mirror's (HF_ENDPOINT)."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def newest_commit(repository: Repository, revision: str) -> str:
    """The commit that `revision` (a branch, a tag, a commit) means today."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    return str(api.repo_info(repository.name, revision=revision, repo_type=repository.kind).sha)


def list_files(repository: Repository, commit: str, folder: str = "") -> list[HubFile]:
    """The files directly in `folder` at a commit, in the order of their names."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=endpoint())
    entries = api.list_repo_tree(repository.name, folder or None, revision=commit, repo_type=repository.kind)
    found = [
        HubFile(path=entry.path, size=entry.size, sha256=entry.lfs.sha256 if entry.lfs else "", git=entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile)
    ]
    return sorted(found, key=lambda remote: remote.name)


def file_blocks(repository: Repository, commit: str, remote: HubFile, have: int) -> Iterator[bytes]:
    """The file's bytes from `have` on; a connection that breaks is opened again where it broke."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    attempts = 0
    while have < remote.size:
        attempts += 1
        if attempts > ATTEMPTS:
            raise InputError(
                f"{repository.name}/{remote.path} breaks off at {have:,} of {remote.size:,} bytes.",
                remedy="Start again later; it goes on there.",
            )
        try:
            for block in _stream(repository, commit, remote, have):
                attempts = 0
                have += len(block)
                yield block
        except HfHubHTTPError:
            raise
        except HTTPError as error:
            logger.warning(
                "%s: the connection broke after %d bytes. The download continues: %s", remote.name, have, error
            )


def _stream(repository: Repository, commit: str, remote: HubFile, have: int) -> Iterator[bytes]:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(repository.name, remote.path, repo_type=repository.kind, revision=commit, endpoint=endpoint())
    headers = build_hf_headers() | {"Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        skip = have if response.status_code == 200 else 0  # a server that knows no ranges sends all of it
        for block in response.iter_raw():
            kept = block[skip:] if skip < len(block) else b""
            skip = max(0, skip - len(block))
            if kept:
                yield kept


@contextmanager
def hub_errors(repository: Repository) -> Iterator[None]:
    """The hub's errors in plain words, each with what to do."""
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
            f"{repository.name} is gated: its owners let in only those who have accepted their terms.",
            remedy=f"Accept them at {repository.page}, make a token there and set HF_TOKEN.",
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{where} shows no {repository.kind} {repository.name}: it is private, or was moved.",
            remedy="If you have a right to it, set HF_TOKEN to a token of yours.",
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{repository.name} has no such revision.", remedy="Name another --revision, or none for the newest."
        ) from None
    except HfHubHTTPError as error:
        raise InputError(
            f"{where} answered with {error.response.status_code} about {repository.name}.",
            remedy="Start again later; it goes on where it was.",
        ) from None
    except OSError as error:
        if not isinstance(error, ConnectionError | TimeoutError):
            full = error.errno == errno.ENOSPC
            raise StoreError(
                f"{error.filename or 'The disk'} cannot be written: {error.strerror}.",
                remedy="Free space; the same command goes on." if full else "Check the folder's rights.",
            ) from None
        raise _away(repository, error) from None
    except HTTPError as error:
        raise _away(repository, error) from None


def _away(repository: Repository, error: Exception) -> InputError:
    return InputError(
        f"{endpoint()} cannot be reached: {error}.",
        remedy="Check the network, or name a mirror with HF_ENDPOINT. Where there is none, "
        f"{repository.aside} What was fetched stays; the same command goes on.",
    )
