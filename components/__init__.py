"""The steps of the pipelines, one package each. A component imports `mantis`, never another component."""
