"""What the first rank of a TrainJob tells its cluster: progress in the job's status, and events."""
