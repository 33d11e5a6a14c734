"""Samples of a benchmark from its files: `benchmark_source` finds the files, and `benchmark_reader` reads them.

Each published layout has a module. Its `raw_rows` gives each row of the benchmark in order, or the reason why the row
is missing. Without `pictures` it reads no bytes of images.
"""
