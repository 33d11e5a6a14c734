"""The size of a chunk of logits, for the loss and for the estimate of memory, which does not load torch."""

CHUNK_LOGITS = 2**26  # 256 MB in fp32, and the same for their gradient
