"""The form of a run on KFP's page: its own fields of a recipe, and the place of a change that a remedy names."""

import re
from functools import cache

from mantis.config.recipe import Recipe

# By the field of the form: the field of the recipe.
FORM_FIELDS = {
    "learning_rate": "training.learning_rate",
    "epochs": "training.epochs",
    "batch_size": "training.global_batch_size",
    "nodes": "training.nodes",
    "benchmarks": "evaluation.benchmarks",
}
OVERRIDES = "overrides"  # the field of the form for all other changes
OPTIONS = {"--name": "mantis_run", "--store": "store_url"}  # of the command line
DOTTED = re.compile(r"\b[a-z]+\.[a-z_]+\b")


def place_on_form(text: str) -> str:
    """Say where on KFP's page the recipe's fields and the command line's options in `text` belong; empty if nowhere."""
    named = list(dict.fromkeys(word for word in DOTTED.findall(text) if word in _recipe_fields()))
    own = {meant: field for field, meant in FORM_FIELDS.items()}
    places = [f"{own[name]} for {name}" for name in named if name in own]
    rest = [name for name in named if name not in own]
    if rest or ("--set" in text and not named):
        places.append(f"{OVERRIDES} (FIELD=VALUE) for {', '.join(rest) or '--set'}")
    places += [f"{field} for {option}" for option, field in OPTIONS.items() if option in text]
    return f" On KFP's page, clone the run, and fill in {' and '.join(places)}." if places else ""


@cache
def _recipe_fields() -> frozenset[str]:
    """The recipe's fields with one dot, e.g. `training.nodes`."""
    sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in Recipe.model_fields.items()}
    return frozenset(f"{section}.{field}" for section, fields in sections.items() for field in fields)
