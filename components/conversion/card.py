"""The model card: what the model is, what it was made of, and under which licence."""

import yaml

from components.core.artifacts import Manifest
from components.core.steps import Run
from components.models.bases import FIELDS, TINY, bases

OWN = "apache-2.0"  # of a model that nothing of others is in


def model_card(run: Run, checkpoint: Manifest, *, parameters: int, difference: float, merged: bool) -> str:
    """README.md of the model folder."""
    recipe = run.recipe
    used = [name for field in FIELDS if (name := getattr(recipe.model, field)) not in ("", TINY)]
    licence = _identifier(used)
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": licence,
        "tags": ["multi-image", "instruction-tuning", recipe.model.family],
    }
    if used:
        front["base_model"] = [bases()[name].repository if name in bases() else name for name in used]
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
        *_licences(used),
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe.to_yaml().strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _identifier(used: list[str]) -> str:
    """The hub's identifier of the one licence that holds; `other` where it is several, or not known."""
    known = {bases()[name].license if name in bases() else "other" for name in used} or {OWN}
    return known.pop() if len(known) == 1 and "unknown" not in known else "other"


def _licences(used: list[str]) -> list[str]:
    if not used:
        return [f"No weights of others are in it: {OWN}."]
    lines = []
    for name in used:
        base = bases().get(name)
        if base is None:
            lines.append(f"- Derived from {name}, whose licence holds for it too.")
            continue
        lines.append(f"- Derived from [{base.repository}](https://huggingface.co/{base.repository}): {base.terms}")
        lines += [f"  - {asked}" for asked in base.asks]
        lines += [f"  - no {use} use" for use in base.forbids]
    return lines
