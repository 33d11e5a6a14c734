"""Loads the fixtures; tests/fixtures has a module for each concern."""

import pytest

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
        "mlflow",
        "models",
        "own_benchmark",
        "processes",
        "recipes",
        "reporting",
        "serving",
        "stores",
        "training",
        "trainjobs",
        "vocabularies",
    )
]
