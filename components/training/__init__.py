"""Plan, loss, engine, checkpoints, loop, launchers.

Imported by pipelines; imports core and models.
"""
