from typing import Any

import pytest
import torch


def pytest_collection_modifyitems(items: Any) -> None:
    """Skip by name: these run wherever CUDA is there."""
    if not torch.cuda.is_available():
        for item in items:
            if "tests/gpu" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)
