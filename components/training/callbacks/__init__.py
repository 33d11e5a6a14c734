"""Callbacks of the trainer: each one observes training and never changes how a step is taken.

A new concern is one class here and one line in `trainer_setup.py`. Two are asked directly: `LossSpikeGuard` by
`TrainStep`, and `HeldOutLoss` by `Trainer`.
"""
