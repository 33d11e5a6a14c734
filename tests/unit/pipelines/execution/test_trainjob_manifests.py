from pathlib import Path

import yaml
from typer.testing import CliRunner, Result

from components.training.launch.trainjob_spec import applied_name
from pipelines.cli.main import app
from pipelines.execution.resolve import resolve_run, shipped_recipes
from pipelines.execution.trainjob_manifests import render, shipped_jobs, stale_jobs, write_jobs


def mantis(*arguments: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_recipe_that_trains_in_a_cluster_has_a_job() -> None:
    wanted = {name for name in shipped_recipes() if resolve_run(name, {}, "")[1].training.launcher == "trainjob"}
    jobs = {name.removesuffix(".yaml"): yaml.safe_load(text) for name, text in shipped_jobs().items()}
    assert set(jobs) == wanted | {"demo"}
    for name, job in jobs.items():
        run = resolve_run(name, {}, "")[0]
        assert job["metadata"]["name"] == applied_name(run)
        assert job["metadata"]["labels"]["mantis-kfp/run"] == run
        assert len(job["metadata"]["name"]) + len("-node-0-99-abcde") <= 63
        assert job["spec"]["trainer"]["command"][-1] == run
    assert (jobs["demo"]["spec"]["trainer"]["numNodes"], jobs["demo"]["spec"]["trainer"]["numProcPerNode"]) == (2, 1)


def test_a_job_is_the_same_run_as_the_commands_above_it() -> None:
    text = render("demo", {"training.learning_rate": "1e-3"}, "", store="s3://bucket/p", image="mine:1")
    assert "# First, once:  mantis data prepare demo --set training.learning_rate=1e-3 --store s3://bucket/p\n" in text
    job = yaml.safe_load(text)
    name = job["metadata"]["name"]
    watch = f"logs -f --prefix -l jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index=0\n"
    assert watch in text, "kubectl follows at most five pods, and other jobs leave theirs"
    assert "# To change a field, render the job again" in text
    assert job["metadata"]["annotations"]["mantis-kfp/learning-rate"] == "0.001"
    assert job["spec"]["trainer"]["command"][-1] == resolve_run("demo", {"training.learning_rate": "1e-3"}, "")[0]
    assert job["spec"]["trainer"]["image"] == "mine:1"


def test_a_long_name_keeps_what_tells_it_from_others() -> None:
    names = {
        yaml.safe_load(render("demo", {}, "x" * 60 + tail, store="s3://bucket", image="i"))["metadata"]["name"]
        for tail in ("a", "b")
    }
    assert len(names) == 2
    assert max(map(len, names)) + len("-node-0-99-abcde") <= 63


def test_a_changed_a_missing_and_a_foreign_file_are_stale(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    assert stale_jobs(tmp_path) == []
    (tmp_path / "demo.yaml").write_text("changed")
    (tmp_path / "mantis-clip.yaml").unlink()
    (tmp_path / "old.yaml").write_text("")
    assert stale_jobs(tmp_path) == ["demo.yaml", "mantis-clip.yaml", "old.yaml"]


def test_what_cannot_be_a_job_is_refused(tmp_path: Path) -> None:
    local = mantis("job", "demo", "--store", tmp_path.as_uri())
    assert local.exit_code == 1
    assert "pods of a TrainJob cannot reach it" in local.output
    assert "one of: RECIPE, --shipped, --check" in mantis("job").output
