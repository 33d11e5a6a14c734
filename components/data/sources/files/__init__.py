"""The forms of a source's files: one module for each form, and the table of them."""
