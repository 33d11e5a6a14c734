"""The commands for a cluster: `mantis pipeline` compiles and submits a DAG, `mantis job` prints a TrainJob."""
