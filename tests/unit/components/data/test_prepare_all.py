from pathlib import Path

import pytest

from components.data.step import prepare_all
from mantis.errors import InputError
from mantis.runs.records import State, read_records
from tests.fixtures.data import RawFolder, RunOn


def test_an_error_of_one_subset_does_not_keep_the_others_from_being_prepared(
    tmp_path: Path, run_on: RunOn, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        raw = RawFolder(tmp_path / "raw" / name)
        raw.write([raw.row("first", raw.image("one.jpg")) if name == "b" else {"id": "no turns"}])
    run = run_on(tmp_path / "raw")
    with pytest.raises(InputError, match="a"):
        prepare_all(run)
    states = {record.step: record.state for record in read_records(run.store, run.id)}
    assert states == {"prepare-a": State.FAILED, "prepare-b": State.DONE, "prepare-c": State.FAILED}
    assert "c: " in caplog.text
