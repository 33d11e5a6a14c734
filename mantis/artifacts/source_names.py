"""The words that `data.source` and `evaluation.source` take besides a folder or a store URL."""

GENERATED = "generated"  # the synthetic tasks
FETCHED = "fetched"  # `data.source`: the sets that `mantis data fetch` brought into the run's store
MIRROR = "mirror"  # `evaluation.source`: the benchmarks that `mantis benchmark fetch` brought into the run's store
