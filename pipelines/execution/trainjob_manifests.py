"""Render TrainJobs for kubectl from recipes. The repository contains those of the shipped recipes."""

from collections.abc import Mapping
from pathlib import Path

from components.training.launch.trainjob_spec import JOB_OF_POD, applied_job, applied_name
from mantis.config.recipe import Recipe
from mantis.kubernetes_yaml import kubernetes_yaml
from mantis.runs.step_runner import Run
from mantis.store.opening import open_store
from pipelines.execution.resolve import resolve_run, shipped_recipes

# For the committed files: the bucket of manifests/base, and the image tags of the overlays local and a100.
STORE, IMAGE, GPU_IMAGE = "s3://mantis", "mantis/train:dev", "mantis/train:dev-gpu"
FIRST_NODE = "batch.kubernetes.io/job-completion-index=0"  # kubectl follows at most five pods at once
# The demo trains locally by default.
DEMO_ON_TWO_NODES = {
    "training.launcher": "trainjob",
    "training.nodes": "2",
    "training.gpus_per_node": "1",
}


def render(recipe: str, overrides: Mapping[str, str], name: str, *, store: str, image: str) -> str:
    """Render the TrainJob of a recipe as YAML, with comments about its prerequisites.

    Raises:
        ConfigError: the recipe does not exist, a field is not valid, or pods cannot reach the store.
    """
    run_id, resolved = resolve_run(recipe, {**overrides, "cluster.image": image}, name, store)
    job = applied_job(Run(id=run_id, store=open_store(store), recipe=resolved))
    return _head(recipe, overrides, name, store, resolved, run_id=run_id) + kubernetes_yaml([job])


def shipped_jobs() -> dict[str, str]:
    """Return file name -> text for every shipped recipe that trains on a cluster."""
    jobs = {"demo.yaml": render("demo", DEMO_ON_TWO_NODES, "", store=STORE, image=IMAGE)}
    for recipe in shipped_recipes():
        if resolve_run(recipe, {}, "")[1].training.launcher == "trainjob":
            jobs[f"{recipe}.yaml"] = render(recipe, {}, "", store=STORE, image=GPU_IMAGE)
    return jobs


def write_jobs(folder: Path) -> list[Path]:
    """Write the jobs of the shipped recipes, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in shipped_jobs().items():
        paths.append(folder / name)
        paths[-1].write_text(text)
    return paths


def stale_jobs(folder: Path) -> list[str]:
    """Return the names of files in `folder` that are missing, superfluous, or different from the recipes' jobs."""
    wanted = shipped_jobs()
    there = {path.name: path.read_text() for path in folder.glob("*.yaml")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def _head(recipe: str, overrides: Mapping[str, str], name: str, store: str, resolved: Recipe, *, run_id: str) -> str:
    given = "".join(f" --set {field}={value}" for field, value in overrides.items())
    given += f" --name {name}" if name else ""
    shown = recipe if "\n" not in recipe else "RECIPE.yaml"
    job = applied_name(run_id)
    nodes, ranks = resolved.training.nodes, resolved.training.nodes * resolved.training.gpus_per_node
    another = f"# With your image, and a queue:  mantis job {shown}{given} --image REF --set cluster.queue=QUEUE\n"
    return (
        f"# {(resolved.description or resolved.name).rstrip('.')}: {ranks} ranks on {nodes} nodes.\n"
        f"{another if resolved.cluster.image in (IMAGE, GPU_IMAGE) else ''}"
        "# To change a field, render the job again: the ranks read the recipe from the store, not from this file.\n"
        f"# First, once:  mantis data prepare {shown}{given} --store {store}\n"
        f"# Watch it:     kubectl -n {resolved.cluster.namespace} get trainjobs; "
        f"kubectl -n {resolved.cluster.namespace} logs -f --prefix -l {JOB_OF_POD}={job},{FIRST_NODE}\n"
        f"# Then:         mantis run {shown}{given} --store {store}   (converts and evaluates on this machine)\n"
    )
