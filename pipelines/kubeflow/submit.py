"""Submit a recipe to a Kubeflow Pipelines server: upload a new pipeline version, then create a run or a schedule."""

import hashlib
import io
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
import yaml
from kfp.client import ServiceAccountTokenVolumeCredentials

from mantis.config.bounded_yaml import LOADER
from mantis.errors import ConfigError, MantisError
from pipelines.execution.platform import Platform
from pipelines.kubeflow.compile import compile_all

logger = logging.getLogger(__name__)

POLL_SECONDS = 10.0
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
PAGE = 100
WITH_ARMS = ("ablation", "sweep")  # pipelines
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # KFP's own variable for the path of a ServiceAccount's token in a pod
USUAL_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"


class SubmissionError(MantisError):
    """The KFP server refuses access, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """The address and access of a KFP server; `token` is a secret and never printed.

    Without `token`, a pod uses its ServiceAccount. Kubernetes mounts that token for the audience
    pipelines.kubeflow.org, and replaces it from time to time. So it is read for each use.
    """

    host: str
    namespace: str
    token: str = ""
    ca_file: str = ""

    def client(self) -> kfp.Client:
        """Create a client of this server."""
        warnings.filterwarnings("ignore", message="This client only works with")
        mounted = os.environ.get(TOKEN_FILE) or USUAL_TOKEN_FILE
        of_account = ServiceAccountTokenVolumeCredentials(mounted) if Path(mounted).is_file() else None
        return kfp.Client(
            host=self.host,
            namespace=self.namespace,
            existing_token=self.token or None,
            credentials=of_account,
            ssl_ca_cert=self.ca_file or None,
        )


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The request to run a pipeline. It passes every parameter, because KFP's UI shows only passed ones."""

    pipeline: str
    platform: Platform
    experiment: str
    title: str
    parameters: Mapping[str, Any]
    service_account: str
    cron: str = ""


def submit(server: Server, wanted: Submission) -> str:
    """Create the run, or with `cron` the recurring run; return its id.

    Raises:
        ConfigError: the image is not pinned by its digest.
        SubmissionError: KFP cannot be reached, or refused; the message contains its answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = {path.stem: path for path in compile_all(Path(folder), wanted.platform)}
        try:
            with redirect_stdout(io.StringIO()):  # the SDK prints its own links, also to the run
                return _create(server, wanted, paths[wanted.pipeline])
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _explained(server, error) from None


def follow(server: Server, run: str) -> str:
    """Wait for the end of a run, report every change of its state, and return the last state.

    Raises:
        SubmissionError: KFP refused. While the server is down, this waits.
    """
    client, state = server.client(), ""
    while state not in ENDED:
        try:
            now = client.get_run(run).state or "PENDING"
        except kfp_server_api.ApiException as error:
            if error.status < 500:
                raise _explained(server, error) from None
            now = f"unknown: KFP answered {error.status}"
        except (urllib3.exceptions.HTTPError, OSError):
            now = "unknown: KFP does not answer"
        if now != state:
            logger.info("Run %s: %s", run, now)
        state = now
        if state not in ENDED:
            time.sleep(POLL_SECONDS)
    return state


def _create(server: Server, wanted: Submission, path: Path) -> str:
    client = server.client()
    pipeline, version = _uploaded(client, wanted, path)
    experiment = client.create_experiment(wanted.experiment, namespace=server.namespace).experiment_id
    common: dict[str, Any] = {
        "experiment_id": experiment,
        "job_name": wanted.title,
        "pipeline_id": pipeline,
        "version_id": version,
        "params": dict(wanted.parameters),
        "enable_caching": False,
        "service_account": wanted.service_account or None,
    }
    if wanted.cron:
        made = client.create_recurring_run(cron_expression=wanted.cron, no_catchup=True, **common)
        return str(made.recurring_run_id)
    return str(client.run_pipeline(**common).run_id)


def _uploaded(client: kfp.Client, wanted: Submission, path: Path) -> tuple[str, str]:
    """Return the ids of the pipeline and of the version with this file; a version's name is the hash of its text.

    KFP's pages show a description only if it comes with the upload, not the one in the file.
    """
    name, description = wanted.pipeline, described(path)
    version_name = f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    pipeline = client.get_pipeline_id(name)
    if pipeline is None:
        pipeline = client.upload_pipeline(str(path), pipeline_name=name, description=description).pipeline_id
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline, page_token=token, page_size=PAGE)
        for version in page.pipeline_versions or ():
            if version.display_name == version_name:
                return pipeline, version.pipeline_version_id
        token = page.next_page_token or ""
        if not token:
            break
    about = f"Image: {wanted.platform.image}. {description}"
    made = client.upload_pipeline_version(str(path), version_name, pipeline_id=pipeline, description=about)
    return pipeline, made.pipeline_version_id


def described(path: Path) -> str:
    """Return the description in a compiled pipeline."""
    return str(next(yaml.load_all(path.read_text(), Loader=LOADER))["pipelineInfo"]["description"])


def _explained(server: Server, error: Exception) -> MantisError:
    status = error.status if isinstance(error, kfp_server_api.ApiException) else None
    if status in (401, 403):
        return SubmissionError(
            f"KFP at {server.host} answered {status}.",
            remedy=f"Check --token (MANTIS_KFP_TOKEN; in a pod {TOKEN_FILE}) and that its account may create runs in "
            f"{server.namespace!r}.",
        )
    if status:
        answer = str(getattr(error, "body", ""))[:500]
        return SubmissionError(
            f"KFP at {server.host} answered {status}: {answer}", remedy="Correct the parameter that the answer names."
        )
    return SubmissionError(
        f"KFP at {server.host} does not answer: {error}.",
        remedy="Check --host, and --ca for a private certificate authority. `kubectl port-forward -n kubeflow "
        "svc/ml-pipeline-ui 8080:80` gives the host http://localhost:8080.",
    )


def check_parameters(
    pipeline: str, model: str, *, over: Sequence[str] = (), parallel: int = 0, trials: int = 0
) -> None:
    """Refuse parameters of another pipeline, and an evaluation or a sweep without its own.

    Raises:
        ConfigError: `pipeline` does not fit `model`, `over`, `parallel` or `trials`.
    """
    for wanted, option, given in (("evaluation", "--model", model), ("sweep", "--over", " ".join(over))):
        if (pipeline == wanted) != bool(given):
            raise ConfigError(
                f"--pipeline {pipeline} does not fit {option} {given!r}.",
                remedy=f"Use {option} with --pipeline {wanted} alone.",
            )
    if parallel and pipeline not in WITH_ARMS:
        raise ConfigError(
            f"--pipeline {pipeline} has no arms, so --parallel {parallel} limits nothing.",
            remedy=f"Use --parallel with --pipeline {' or '.join(WITH_ARMS)}.",
        )
    if trials and pipeline != "sweep":
        raise ConfigError(
            f"--pipeline {pipeline} searches for no values, so --trials {trials} does not fit.",
            remedy="Use --trials with --pipeline sweep.",
        )
