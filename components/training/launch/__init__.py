"""Starting ranks: local processes or a TrainJob."""
