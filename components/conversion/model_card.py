"""Write the model card: description, lineage, training and licence of a converted model."""

import yaml

from mantis.artifacts.manifest import Manifest
from mantis.config.model_settings import SCRATCH, ModelSettings
from mantis.models.weights.catalog import WeightsLicence, named_bases
from mantis.runs.step_runner import Run

OURS = "apache-2.0"  # licence of a model that was built from scratch


def model_card(run: Run, checkpoint: Manifest, *, parameters: int, difference: float, merged: bool) -> str:
    """Write the text of README.md of the model folder.

    Args:
        run: the run that trained the model.
        checkpoint: the manifest of the converted checkpoint.
        parameters: the number of parameters of the stored model.
        difference: the largest absolute difference of logits in the proof.
        merged: whether adapters were merged into a base.
    """
    recipe = run.recipe
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": _identifier(recipe.model),
        "tags": ["multi-image", "instruction-tuning", recipe.model.family],
    }
    if recipe.model.base != SCRATCH:
        named = named_bases(recipe.model)
        front["base_model"] = [base.repository for base in named.values()] or recipe.model.base
    inputs = [f"| {name} | `{item.fingerprint}` | {item.key} |" for name, item in sorted(checkpoint.inputs.items())]
    summary = [f"| {name} | {value} |" for name, value in checkpoint.summary.items()]
    compared = "those of peft's adapters on the unquantized base" if merged else "training's"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        f"# {model_name(recipe.name, recipe.model)}",
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
        "| input | fingerprint | key in the store |",
        "|---|---|---|",
        f"| checkpoint | `{checkpoint.fingerprint}` | {checkpoint.key} |",
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
        *_licence(recipe.model),
        "",
        "## Recipe",
        "",
        "```yaml",
        recipe.to_yaml().strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def model_name(name: str, settings: ModelSettings) -> str:
    """Return the model's name, with the prefixes that the licences of its bases require."""
    prefixes = [licence.name_prefix for licence in _licences(settings) if licence.name_prefix]
    return " ".join([*dict.fromkeys(prefixes), name])


def notices(settings: ModelSettings) -> str:
    """Return the text of the file Notice, which some licences require; empty if none does."""
    return "\n".join(licence.notice for licence in _licences(settings) if licence.notice)


def _licences(settings: ModelSettings) -> list[WeightsLicence]:
    """Return the licences of the published weights in this model, without repetition."""
    return list(dict.fromkeys(base.licence for base in named_bases(settings).values()))


def _identifier(settings: ModelSettings) -> str:
    """Return the hub's identifier of the licence: that of the base, which holds most of the weights."""
    named = named_bases(settings)
    if settings.base == SCRATCH and not named:
        return OURS
    return named["base"].licence.identifier if "base" in named else "other"


def _licence(settings: ModelSettings) -> list[str]:
    named = named_bases(settings)
    lines = []
    if settings.base == SCRATCH and not named:
        lines.append(f"The model contains no published weights. Its licence is {OURS}.")
    elif "base" not in named:
        lines.append(f"Derived from {settings.base}. The licence of that model applies to this one too.")
    for licence in _licences(settings):
        sources = [base.repository for base in named.values() if base.licence == licence]
        lines += [
            *([f"**{licence.built_with}**", ""] if licence.built_with else []),
            f"Derived from {', '.join(sources)}: [{licence.name}]({licence.url}). It applies here too and requires:",
            "",
            *(f"- {request}" for request in licence.asks),
            "",
            *([licence.notice, ""] if licence.notice else []),
        ]
    return lines if lines[-1] else lines[:-1]
