"""No call in the product can run code that a file of a store brings along."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mantis.config import bounded_yaml
from tests.helpers.paths import ROOT

FILES = [path for folder in ("mantis", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]
OPENS_IMAGES = ROOT / "mantis/images/formats.py"  # in the accepted formats alone
# They read JSON and nothing else.
PLAIN_READERS = {"PreTrainedTokenizerFast", "LoraConfig"}
SAFE_LOADERS = {"SafeLoader", "yaml.SafeLoader", "LOADER"}
UNPICKLING = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load", "dill.loads",
    "cloudpickle.loads", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec",
}  # fmt: skip


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def problems(path: Path) -> Iterator[str]:
    for name, call in calls(path):
        given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}
        where = f"{path.name}:{call.lineno}: {name}"
        if name in UNPICKLING and given.get("Loader") not in SAFE_LOADERS:
            yield f"{where} may run code"
        if given.get("weights_only") == "False" or given.get("allow_pickle") == "True":
            yield f"{where} unpickles"
        if name == "torch.load" and given.get("weights_only") != "True":
            yield f"{where} needs weights_only=True"
        if given.get("trust_remote_code") not in {None, "False"}:
            yield f"{where} trusts code beside a model"
        if name in {"Image.open", "PIL.Image.open"} and path != OPENS_IMAGES:
            yield f"{where} accepts every format of Pillow"
        owner = name.rpartition(".")[0]
        builds = name.endswith(".from_pretrained") and owner not in PLAIN_READERS
        if builds and given.get("trust_remote_code") != "False":
            yield f"{where} needs trust_remote_code=False"


def test_our_loader_of_yaml_is_a_safe_one() -> None:
    assert bounded_yaml.LOADER in (yaml.CSafeLoader, yaml.SafeLoader)
    for text in ("!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd"):
        with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
            bounded_yaml.parse_yaml(text)


@pytest.mark.parametrize("folder", ["mantis", "components", "pipelines"])
def test_no_call_runs_code_from_a_file(folder: str) -> None:
    found = [problem for path in FILES if path.is_relative_to(ROOT / folder) for problem in problems(path)]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
        "pickle.loads(data)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(folder)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "Image.open(path)",
    ],
)
def test_the_check_sees_each_kind(tmp_path: Path, line: str) -> None:
    (tmp_path / "code.py").write_text(line + "\n")
    assert list(problems(tmp_path / "code.py"))
