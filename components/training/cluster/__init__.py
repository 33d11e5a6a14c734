"""Training as a TrainJob: what is asked of the cluster, and following it to its end.

Imported by components.training.launchers, when a recipe names that launcher, and by nothing else.
"""
