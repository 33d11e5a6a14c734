"""ZeRO checkpoint -> safetensors, and the proof that both are the same model.

Imported by pipelines; imports core and models.
"""
