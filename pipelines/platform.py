"""What a task needs from the cluster it runs on, by kfp-kubernetes; kfp.local ignores all of it.

Names of Secrets and their keys are those of manifests/base. Nothing is retried by KFP: its controller retries lost pods
only, whatever a task asks for, and the steps retry transient faults themselves.
"""

from kfp import dsl, kubernetes

STORE_KEYS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Absent Secrets are no error: MLflow may be KFP's own, and most data needs no token.
OPTIONAL_KEYS = {
    "mantis-store": ("AWS_REGION",),
    "mantis-mlflow": ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "mantis-hub": ("HF_TOKEN",),
}
SHORT_SECONDS = 1800  # of tasks that only read and write records; the pod's wait for a node counts, too


def on_cluster(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Credentials as environment, and KFP's cache off.

    Every step looks into the store itself and knows whether the result is still there; KFP's cache does not, and
    would pass on addresses of what was deleted, or skip a launch.
    """
    kubernetes.use_secret_as_env(task, "mantis-store", {key: key for key in STORE_KEYS})
    for secret, keys in OPTIONAL_KEYS.items():
        kubernetes.use_secret_as_env(task, secret, {key: key for key in keys}, optional=True)
    return task.set_caching_options(False)


def short(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """`on_cluster`, and ended when it hangs."""
    return kubernetes.set_timeout(on_cluster(task), SHORT_SECONDS)


def with_shared_memory(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """`on_cluster`, with a /dev/shm for processes that hand tensors to each other; Kubernetes' own has 64 MiB."""
    return kubernetes.empty_dir_mount(on_cluster(task), "shm", "/dev/shm", medium="Memory", size_limit="2Gi")
