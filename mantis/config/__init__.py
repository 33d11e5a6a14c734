"""Recipes: sections, identity, overrides, migrations."""
