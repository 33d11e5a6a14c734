from pathlib import Path

import pytest

from tests.fixtures.data import MakeJpeg, RawFolder, RunOn


@pytest.fixture
def two_subsets(raw_folder: RawFolder, make_jpeg: MakeJpeg) -> Path:
    """`large` with 12 rows of 0 to 3 images, `small` with 3."""
    kind, root = type(raw_folder), raw_folder.folder
    for name, count in (("large", 12), ("small", 3)):
        subset = kind(root / name)
        rows = []
        for number in range(count):
            images = [subset.image(f"{number}-{at}.jpg", make_jpeg((number, at, 9))) for at in range(number % 4)]
            rows.append(subset.row(f"{name}-{number}", *images))
        subset.write(rows)
    return root


def test_reuse_imports_nothing_heavy(two_subsets: Path, run_on: RunOn) -> None:
    import subprocess
    import sys

    code = "import sys, components.data.step; print({'torch', 'transformers', 'lance', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
