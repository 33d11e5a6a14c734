"""Memory, FLOPs and time that a training needs."""
