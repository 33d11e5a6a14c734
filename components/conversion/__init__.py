"""Convert a ZeRO checkpoint to safetensors, and prove that both hold the same model.

`pipelines` imports this package. It imports `mantis` alone.
"""
