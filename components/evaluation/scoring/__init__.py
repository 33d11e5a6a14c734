"""From a response to a score, and from scores to rows with intervals."""
