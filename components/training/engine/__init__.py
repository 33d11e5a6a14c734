"""DeepSpeed: its configuration, adapters, and the wrapped model."""
