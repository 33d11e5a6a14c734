"""Checks of preflight that read the tokenizer or the benchmarks' images."""
