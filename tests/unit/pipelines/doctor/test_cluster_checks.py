"""`mantis doctor --cluster` where there is no cluster; with one: tests/cluster/test_doctor.py."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mantis.config.cluster_settings import ClusterSettings
from pipelines.cli.main import app
from pipelines.doctor.cluster_checks import examine_cluster
from tests.fixtures.api_server import Kubeconfig


def test_no_cluster_is_a_finding_beside_those_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (found,) = examine_cluster(ClusterSettings(), f"file://{tmp_path}", nodes=2)
    assert (found.what, found.ok) == ("API server", False)
    assert "Set KUBECONFIG" in found.remedy
    said = CliRunner().invoke(app, ["doctor", "--cluster", "--store", f"file://{tmp_path}"])
    assert said.exit_code == 1
    assert "packages" in said.output
    assert "'.[gpu]'" in said.output  # brackets are no markup
    assert "Set KUBECONFIG" in said.output


def test_a_server_that_is_away_ends_the_look(
    kubeconfig: Kubeconfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipelines.doctor.cluster_checks.PATIENCE_SECONDS", 0.5)
    kubeconfig(9)  # nobody listens there
    found = examine_cluster(ClusterSettings(image="any"), f"file://{tmp_path}", nodes=2)
    assert [one.ok for one in found if one.what in ("API server", "trainjobs", "rights", "all-reduce")] == [False] * 4
