"""One HTML page and its Markdown twin for a run.

Imported by pipelines; imports core.
"""
