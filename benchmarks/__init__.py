"""What this project claims to be fast at: rows that measure a peer and ours alternately, in one run.

`python -m benchmarks --list` shows them; nothing of the project imports this.
"""
