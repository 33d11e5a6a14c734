"""From a response to its score: the target of a sample, the parsed answer and the metrics."""
