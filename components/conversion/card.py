"""The model card: what the model is, what it was made of, and under which licence."""

import yaml

from components.core.artifacts import Manifest
from components.core.steps import Run

# Licence of each base; a base that is not here is named, and its own licence holds.
LICENCES = {"tiny": "apache-2.0"}


def model_card(run: Run, checkpoint: Manifest, *, parameters: int, difference: float, merged: bool) -> str:
    """README.md of the model folder."""
    recipe = run.recipe
    licence = LICENCES.get(recipe.model.base, "other")
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": licence,
        "tags": ["multi-image", "instruction-tuning", recipe.model.family],
    }
    if recipe.model.base not in LICENCES:
        front["base_model"] = recipe.model.base
    inputs = [f"| {name} | `{item.fingerprint}` | {item.uri} |" for name, item in sorted(checkpoint.inputs.items())]
    summary = [f"| {name} | {value} |" for name, value in checkpoint.summary.items()]
    compared = "those of peft's adapters on the unquantized base" if merged else "training's"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        f"# {recipe.name}",
        "",
        recipe.description or f"A model of the family {recipe.model.family}, tuned on interleaved multi-image data.",
        "",
        f"{parameters:,} parameters, stored as {recipe.conversion.precision}.",
        "",
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        "model = AutoModelForImageTextToText.from_pretrained(FOLDER)",
        "processor = AutoProcessor.from_pretrained(FOLDER)",
        "```",
        "",
        "## Lineage",
        "",
        f"Run `{run.id}`, code `{checkpoint.made_by.code_version}`.",
        "",
        "| input | fingerprint | address |",
        "|---|---|---|",
        f"| checkpoint | `{checkpoint.fingerprint}` | {checkpoint.uri} |",
        *inputs,
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *summary,
        "",
        f"Every tensor was compared with the checkpoint's; logits differ from {compared} by at most {difference:.3g}.",
        "",
        "## Licence",
        "",
        _licence(recipe.model.base, licence),
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe.to_yaml().strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _licence(base: str, licence: str) -> str:
    if base in LICENCES:
        return f"No weights of others are in it: {licence}."
    return f"Derived from {base}, whose licence holds for it too."
