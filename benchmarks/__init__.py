"""Speed benchmarks: each row measures a peer and this project alternately, in one process tree.

`python -m benchmarks --list` prints the rows. Nothing of the project imports this package.
"""
