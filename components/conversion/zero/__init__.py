"""Reading DeepSpeed ZeRO checkpoints by byte ranges."""
