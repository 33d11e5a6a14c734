"""Objects whose pickles run a command when they are loaded."""

import json
import os
from pathlib import Path
from typing import Any


class Planted:
    """Its pickle makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.marker}",))


class PlantedByName:
    """Its pickle calls getattr on a module's attribute, as pickles of enumerations in Python 3.11.0 do."""

    def __init__(self, of: object, name: str) -> None:
        self.of, self.name = of, name

    def __reduce__(self) -> Any:
        return (getattr, (self.of, self.name))


def plant_module(folder: Path, marker: Path, name: str = "config.json") -> None:
    """Let `name` in a model's folder point to a module beside it, which makes the file `marker` when it is imported."""
    (folder / "planted.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import AutoModel as Planted, LlavaConfig as PlantedConfig\n"
    )
    path = folder / name
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored["auto_map"] = {
        "AutoConfig": "planted.PlantedConfig",
        "AutoModelForImageTextToText": "planted.Planted",
        "AutoTokenizer": ["planted.Planted", "planted.Planted"],
        "AutoProcessor": "planted.Planted",
    }
    path.write_text(json.dumps(stored))
