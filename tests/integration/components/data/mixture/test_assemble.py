import subprocess
import sys


def test_reuse_imports_nothing_heavy() -> None:
    code = "import sys, components.data.step; print({'torch', 'transformers', 'lance', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
