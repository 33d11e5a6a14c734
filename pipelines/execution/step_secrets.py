"""The Secrets of each task: only the credentials that it uses, by the name of its component.

Names and keys are those of manifests/base, whose bootstrap/make_users.py has the rights of each key of the store.
"""

from dataclasses import dataclass

STORE, RESULTS, MLFLOW, HUB, WEBHOOK = (
    "mantis-store",
    "mantis-store-results",
    "mantis-mlflow",
    "mantis-hub",
    "mantis-webhook",
)
# Beginnings of names. The first write datasets, mixtures, checkpoints and models. All others read them, and write
# records and results alone.
MAKERS = ("prepare", "assemble", "train", "convert")
READERS_OF_SOURCES = ("preflight", "prepare")  # of a data.source on the hub; the rest of the hub is in the store before
TRACKERS = ("preflight", "finish", "train", "ask", "compare")  # of runs in MLflow
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "SSL_CERT_FILE")
MLFLOW_KEYS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)


@dataclass(frozen=True, kw_only=True)
class StepSecret:
    """Keys of a Secret that become the variables of a task. A pod waits for a Secret that is not optional."""

    name: str
    keys: tuple[str, ...]
    optional: bool = True


def secrets_of(component: str) -> tuple[StepSecret, ...]:
    """The Secrets of the tasks of a component, by its name in the compiled YAML, such as `prepare-mixture`.

    The address of the store is not optional. Its keys may be missing, because the account of a pod may have a role.
    MLflow may belong to KFP, and most data needs no token.
    """
    store = STORE if component.startswith(MAKERS) else RESULTS
    given = [
        StepSecret(name=store, keys=("AWS_ENDPOINT_URL",), optional=False),
        StepSecret(name=store, keys=S3_KEYS),
    ]
    if component.startswith(TRACKERS):
        given.append(StepSecret(name=MLFLOW, keys=MLFLOW_KEYS))
    if component.startswith(READERS_OF_SOURCES):
        given.append(StepSecret(name=HUB, keys=("HF_TOKEN",)))
    if component.startswith("finish"):
        given.append(StepSecret(name=WEBHOOK, keys=("MANTIS_WEBHOOK_URL",)))
    return tuple(given)
