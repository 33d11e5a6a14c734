"""Model families, tokenization, packed batches, weights."""
