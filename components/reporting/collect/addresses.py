"""Names that an artifact's address tells."""

from mantis.artifacts.manifest import Manifest


def benchmark_of(evaluation: Manifest) -> str:
    """evaluations/<model>/<benchmark>/<fingerprint>."""
    return evaluation.key.split("/")[2]


def subset_of(dataset: Manifest) -> str:
    """datasets/<subset>/<fingerprint>."""
    return dataset.key.split("/")[1]
