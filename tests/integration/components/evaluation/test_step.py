import subprocess
import sys


def test_the_step_imports_no_torch() -> None:
    code = "import sys, components.evaluation.step; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
