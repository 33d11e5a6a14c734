"""One module per layout in which benchmarks are published; each yields raw rows, or what is missing of them.

A module's `raw_rows` gives the row, or the reason why it is missing, for each sample of the published benchmark, in its
order. Without `pictures` their bytes are not read.
"""
