"""LLaVA over CLIP or SigLIP."""
