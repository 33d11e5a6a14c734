"""The parts of the system, one folder each; every part may import `core`, and `models` where it needs a model.

Only `pipelines` imports several parts at once.
"""
