"""Loads the fixtures; tests/fixtures has a module for each concern."""

import pytest
from hypothesis import settings

settings.register_profile("no wall time", deadline=None)  # on a busy machine any example may take long
settings.load_profile("no wall time")
pytest.register_assert_rewrite("tests.helpers")
pytest_plugins = [
    f"tests.fixtures.{concern}"
    for concern in (
        "api_server",
        "browser",
        "chat_models",
        "cli",
        "conversion",
        "data",
        "evaluation",
        "kubernetes",
        "logs",
        "mlflow",
        "models",
        "own_benchmark",
        "processes",
        "recipes",
        "reporting",
        "seeds",
        "serving",
        "stores",
        "training",
        "trainjobs",
        "vocabularies",
    )
]
