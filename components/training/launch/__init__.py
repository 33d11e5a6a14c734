"""Start the ranks as local processes or as a TrainJob."""
