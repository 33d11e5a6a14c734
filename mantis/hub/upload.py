"""Upload files to a model repository of the hub, in one commit.

huggingface_hub transfers the bytes. The hub keeps each large file before the commit, so a repeated upload continues.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mantis.errors import ConfigError, InputError
from mantis.hub.client import HubFile, Repository, endpoint, hub_errors, list_tree, newest_commit

MESSAGES = {
    401: ("refuses the token", "Create a token with write access on the hub, and set HF_TOKEN."),
    403: ("does not let this token write there", "Check the name of the organization, and the token's rights."),
    409: ("has another change of this repository in progress", "Repeat the command."),
    413: ("takes no file of this size", "Ask the hub for more room."),
}


def current_files(repository: Repository) -> list[HubFile] | None:
    """List the newest files of a repository. None if it does not exist, or is private and the token cannot read it.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with hub_errors(repository):
        try:
            return list_tree(repository, newest_commit(repository, "main"))
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None


def check_token() -> str:
    """Return the name of the token's owner.

    Raises:
        ConfigError: there is no token.
        InputError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise ConfigError(
            "There is no token of the hub.",
            remedy="Create one with write access on the hub, and set HF_TOKEN, or run `hf auth login`.",
        )
    with upload_errors("the account"):
        return str(HfApi(endpoint=endpoint()).whoami()["name"])


def upload(
    repository: str, files: Mapping[str, Path | bytes], *, delete: Sequence[str], private: bool, message: str
) -> str:
    """Create the repository if it is missing, and commit the files. Returns the address of the commit.

    Args:
        repository: ORG/NAME.
        files: from the path in the repository to a local file or its bytes. Equal files are not sent again.
        delete: paths to delete in the same commit.
        private: whether a new repository is private. An existing one keeps its visibility.
        message: the first line of the commit.

    Raises:
        InputError: the hub refuses, or cannot be reached. Sent files are kept there.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(endpoint=endpoint())
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=source) for name, source in files.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in delete),
    ]
    with upload_errors(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)


@contextmanager
def upload_errors(repository: str) -> Iterator[None]:
    """Turn the hub's errors into errors with a remedy."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        problem, remedy = MESSAGES.get(status, (f"answers with status {status}", "Repeat the command later."))
        said = f" It says: {error.server_message}" if error.server_message else ""
        raise InputError(
            f"{endpoint()} {problem}: {repository}.{said}", remedy=f"{remedy} Files that were sent are kept there."
        ) from None
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise _broken(repository, error) from None
    except RuntimeError as error:  # huggingface_hub wraps what breaks an upload
        raise _broken(repository, error.__cause__ or error) from None
    except ValueError as error:  # the hub refuses a large file, or the metadata of the card
        raise InputError(
            f"The upload of {repository} to {endpoint()} failed: {error}.",
            remedy="Repeat the command. Files that were sent are kept there.",
        ) from None


def _broken(repository: str, error: BaseException) -> InputError:
    return InputError(
        f"The upload of {repository} to {endpoint()} broke off: {error}.",
        remedy="Check the network, then repeat the command. Files that were sent are kept there.",
    )
