"""Read DeepSpeed ZeRO checkpoints by byte ranges."""
