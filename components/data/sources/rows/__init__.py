"""The forms of a row: one module for each form, and the row that all of them become."""
