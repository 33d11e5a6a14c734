"""Model families, one module each with the same names in each, prompts and tokenizers.

Imported by data, training, conversion, evaluation; imports core.
"""
