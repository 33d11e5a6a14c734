"""Files of torch.save from a store: what is read, and what is refused without running it."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mantis.artifacts.tensor_files import check_names, read_tensors
from mantis.errors import IntegrityError
from tests.helpers.planted_code import Planted

Write = Callable[[Path, Planted], object]
FORMS: dict[str, Write] = {
    "beside tensors": lambda path, planted: torch.save({"weight": torch.ones(2), "client": planted}, path),
    "deep inside": lambda path, planted: torch.save({"a": [({"b": [planted]},)]}, path),
    "as a key": lambda path, planted: torch.save({(1, planted): 1}, path),
    "the whole file": lambda path, planted: torch.save(planted, path),
    "torch's old format": lambda path, planted: torch.save(planted, path, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda path, planted: path.write_bytes(pickle.dumps(planted)),
    "protocol 4": lambda path, planted: torch.save({"client": planted}, path, pickle_protocol=4),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mapped", [False, True])
def test_code_in_any_form_is_refused_and_not_run(tmp_path: Path, form: str, mapped: bool) -> None:
    path, marker = tmp_path / "states.pt", tmp_path / "it-was-run"
    FORMS[form](path, Planted(marker))
    with pytest.raises(IntegrityError, match=r"states\.pt (wants posix\.system|is not a file of torch\.save)"):
        read_tensors(path, mapped=mapped)
    assert not marker.exists()


def test_the_name_is_found_without_reading_tensors(tmp_path: Path) -> None:
    path, marker = tmp_path / "states.pt", tmp_path / "it-was-run"
    torch.save({"client": Planted(marker)}, path)
    with pytest.raises(IntegrityError, match=r"wants posix\.system.* None of its code was run"):
        check_names(path)
    assert not marker.exists()


def test_tensors_and_plain_values_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6, dtype=torch.bfloat16).view(2, 3)
    value = OrderedDict(a=shared, b=shared[1], c=[1, 2.5, "text", None, True, (1,)], d=torch.Size([2, 3]))
    torch.save(value, tmp_path / "states.pt")
    for mapped in (False, True):
        found = read_tensors(tmp_path / "states.pt", mapped=mapped)
        assert torch.equal(found["a"], shared)
        assert found["b"].data_ptr() == found["a"][1].data_ptr()
        assert (found["c"], found["d"]) == (value["c"], value["d"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no zip at all"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "states.pt").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"states\.pt is not a file of torch\.save"):
        read_tensors(tmp_path / "states.pt")
