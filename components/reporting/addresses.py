"""Names that an artifact's address tells."""

from components.core.artifacts import Manifest
from components.core.store import ObjectStore, key_of


def benchmark_of(store: ObjectStore, evaluation: Manifest) -> str:
    """evaluations/<model>/<benchmark>/<fingerprint>."""
    return key_of(store, evaluation.uri).split("/")[2]


def subset_of(store: ObjectStore, dataset: Manifest) -> str:
    """datasets/<subset>/<fingerprint>."""
    return key_of(store, dataset.uri).split("/")[1]
