"""From samples to packed micro-steps of equal cost."""
