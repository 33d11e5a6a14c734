"""The whole job in one pod of the image: no rights, no writable file system but two empty folders."""

import time

import pytest

SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
RUN = (
    "run",
    "demo",
    "--store=file:///store",
    "--set=data.generated_conversations=320",
    "--set=evaluation.samples_per_skill=20",
    "--set=training.epochs=1",
)
DEADLINE = 600  # seconds; most of it is the first pull of the image


@pytest.mark.timeout(DEADLINE + 60)
def test_the_whole_job_in_one_pod(kube, image, namespace):
    from kubernetes import client

    core, batch = client.CoreV1Api(), client.BatchV1Api()
    container = {
        "name": "mantis",
        "image": image,
        "command": ["tini", "--", "mantis"],
        "args": list(RUN),
        "workingDir": "/tmp",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}},
        "securityContext": SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "store", "mountPath": "/store"}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("tmp", "store")],
    }
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": DEADLINE, "template": {"spec": pod}}
    batch.create_namespaced_job(namespace, {"metadata": {"name": "demo"}, "spec": spec})
    state = None
    while state is None or not (state.succeeded or state.failed):
        time.sleep(2)
        state = batch.read_namespaced_job_status("demo", namespace).status
    (made,) = core.list_namespaced_pod(namespace, label_selector="job-name=demo").items
    said = core.read_namespaced_pod_log(made.metadata.name, namespace)
    assert state.succeeded, said
    assert "report  file:///store/reports/" in said
