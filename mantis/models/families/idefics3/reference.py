"""Idefics3 by Idefics3Processor and its chat template."""

from dataclasses import replace

from mantis.models.families.smolvlm.reference import REFERENCE as SMOLVLM

# chat_template.json of Idefics3-8B-Llama3: SmolVLM's behind LLaMA-3's first token.
REFERENCE = replace(SMOLVLM, rules=replace(SMOLVLM.rules, first="<|begin_of_text|>"))
