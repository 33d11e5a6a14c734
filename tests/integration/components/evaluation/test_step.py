import subprocess
import sys


def test_the_step_imports_no_torch() -> None:
    code = "import sys, components.evaluation.step; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
