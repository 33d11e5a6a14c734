"""Runs parts of the official repositories without their models: stand-ins record the text that a model would get."""

import importlib.util
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

# Repository -> the commit whose functions made the golden prompts and scores.
COMMITS = {
    "TIGER-AI-Lab/Mantis": "f3a319202d882a1794d28440b77bba7c58869a9e",
    "EvolvingLMMs-Lab/lmms-eval": "75571cfe0fa36ca5ec2e6aa2bb268f9d38295af3",
    "jdf-prog/BLINK_Benchmark": "a6e197a798be3bb8b250668e33b11c621970607d",
    "haotian-liu/LLaVA": "c121f0432da27facab705978f83c4ada465e46fd",
    "muirbench/MuirBench": "840b85fe960ab6160cd566fe8360bfa80f9164db",
    "ys-zong/MIRB": "04c35b9c556b8336cd2cb7c2c7ee3d390772ee5d",
    "MMMU-Benchmark/MMMU": "bb0b95a945998d91dfef37e969e07d49d1139438",
    "lupantech/MathVista": "53d525874bdde205128e6b160b7357a88277d479",
    "zeyofu/BLINK_Benchmark": "2d6a779be4aa1ad0d38d7aa539bcb43b6dd81592",
    "lupantech/ScienceQA": "2cbf8318e07b9ece895bb2ae605e71e38d623264",
    "open-compass/VLMEvalKit": "e8e78f05f3080fe28154f2130321f17951c3be94",
    "GT-Vision-Lab/VQA": "a013f0043c1e2cdc995922dfe257f7149aa9af06",
    "umd-huang-lab/Mementos": "b7f2e62eb6481686f5ea39d3cfdf2a6e61e82dec",
}


class Everything(ModuleType):
    """A module that has every name. A name is a stand-in that accepts every call."""

    __all__: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package, so that modules below it can be imported, too

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = mock.MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, made)
        return made


class OfficialRepositories:
    """The repositories of COMMITS below `folder`, as git directories `<owner>+<name>`. `clone` makes the missing ones.

    Files of a commit are written below `work`.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder, self._work = folder, work

    def clone(self) -> None:
        """Clone every repository that the folder lacks, with its whole history."""
        for name in COMMITS:
            if not self._git_folder(name).is_dir():
                address = f"https://github.com/{name}"
                subprocess.run(["git", "clone", "--bare", "--quiet", address, self._git_folder(name)], check=True)

    def files(self, name: str, *paths: str) -> Path:
        """Write `paths` of the repository, and return their root folder."""
        git = ["git", "-C", str(self._git_folder(name)), "archive", COMMITS[name], *paths]
        target = self._work / name
        with tarfile.open(fileobj=io.BytesIO(subprocess.run(git, check=True, capture_output=True).stdout)) as archive:
            archive.extractall(target, filter="data")
        return target

    def file(self, name: str, path: str) -> Path:
        """Write one file of the repository, and return its path."""
        return self.files(name, path) / path

    def _git_folder(self, name: str) -> Path:
        folder = self._folder / name.replace("/", "+")
        return folder / "repo" if (folder / "repo").is_dir() else folder


@contextmanager
def stand_ins(*names: str, **given: ModuleType) -> Iterator[None]:
    """Imports of `names`, and of modules below them, get stand-ins; `given` has modules of that name.

    In `given`, two underscores stand for a dot.
    """
    finder = _Finder(names)
    known = {name.replace("__", "."): module for name, module in given.items()}

    def covered() -> list[str]:
        return [name for name in sys.modules if finder.covers(name) or name in known]

    before = {name: sys.modules.pop(name) for name in covered()}
    sys.modules.update(known)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in covered():
            del sys.modules[name]
        sys.modules.update(before)


def module_of(file: Path, name: str = "official") -> Any:
    """Execute a file as a module."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module(name: str, **values: Any) -> ModuleType:
    """A stand-in module with some values that are real."""
    made = Everything(name)
    for key, value in values.items():
        setattr(made, key, value)
    return made


class _Finder:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def covers(self, name: str) -> bool:
        return any(name == each or name.startswith(f"{each}.") for each in self._names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if not self.covers(name):
            return None
        return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]  # it has what a loader needs

    def create_module(self, spec: Any) -> ModuleType:
        return Everything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
