"""Raw conversations with images -> prepared subsets -> a mixture; the ledger of what was dropped.

Imported by pipelines; imports core and models.
"""
