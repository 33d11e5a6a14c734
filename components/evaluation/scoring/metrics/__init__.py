"""Metrics: one module for each official implementation, which the module names.

`official` and `strict` of a module take a response and a target. They return the parsed answer and its score.
"""
