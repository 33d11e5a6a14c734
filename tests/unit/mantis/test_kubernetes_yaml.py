from typing import Any

import pytest
import yaml

from mantis.kubernetes_yaml import kubernetes_yaml


@pytest.mark.parametrize("text", ["1e-05", "12345678901e345678901234", ".5E1", "1_0e2", "0o17", "0x1f", "y", "N"])
def test_a_string_that_go_reads_as_a_number_is_quoted(text: str) -> None:
    written = kubernetes_yaml([{"metadata": {"annotations": {"a": text}}}])
    assert f"a: '{text}'\n" in written
    assert yaml.safe_load(written) == {"metadata": {"annotations": {"a": text}}}


def test_other_values_are_written_as_before() -> None:
    objects: list[dict[str, Any]] = [
        {"name": "train-1e5", "text": "97b054cd", "nodes": 2, "on": True, "none": None},
        {"text": "true: ''"},
    ]
    assert kubernetes_yaml(objects) == yaml.safe_dump_all(objects, sort_keys=False)
    assert list(yaml.safe_load_all(kubernetes_yaml(objects))) == objects
