"""One module per official way of judging a response; each names the implementation that it follows.

A module's `official` and `strict` take a response and a target and say what was parsed and what score it gets.
"""
