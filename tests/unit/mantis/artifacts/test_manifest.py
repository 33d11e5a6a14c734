"""Objects of every size are hashed whole."""

import hashlib

import pytest

from mantis.artifacts.manifest import hash_object
from mantis.store.local import LocalStore


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 9, 10, 12])
def test_an_object_of_several_blocks_is_hashed_whole(local_store: LocalStore, size: int) -> None:
    data = bytes(range(size))
    local_store.put("a/object", data)
    assert hash_object(local_store, "a/object", size, block=4) == hashlib.sha256(data).hexdigest()
