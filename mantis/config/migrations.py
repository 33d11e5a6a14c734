"""Migrates stored recipes: gives renamed fields their present names, and finds the first name of a field.

A rename is one line of RENAMED, in chronological order. The identity uses the first name of a field, so a rename
changes no run id and no address.
"""

from typing import Any

from mantis.errors import ConfigError

# Old dotted name -> new dotted name. The name of a section stands for all of its fields.
RENAMED: dict[str, str] = {
    "training.batch_size": "training.global_batch_size",
    "training.processes_per_node": "training.gpus_per_node",
    "training.checkpoint_keep": "training.keep_last",
    "training.checkpoint_keep_every": "training.keep_every",
    "training.feed_threads": "training.data_workers",
    "training.hang_seconds": "training.hang_timeout_seconds",
    "training.loss_spike": "training.loss_spike_factor",
    "training.skip_bad_steps": "training.max_skipped_steps",
    "training.epsilon": "training.eps",
    "training.gradient_clipping": "training.max_grad_norm",
    "data.balance": "data.sampling",
    "model.tiny.image_size": "model.image.size",
    "model.tiny.image_width": "model.image.width",
    "model.tiny.patch_size": "model.image.patch_size",
    "model.tiny.vision_feature_layer": "model.image.feature_layer",
    "model.tiny.vision_feature_select": "model.image.feature_select",
    "model.tiny.latents": "model.image.latents",
    "model.tiny": "model.from_scratch",
}

# Old dotted name -> the field that has its meaning today, among others. `_join_profile` gives it a value.
JOINED = {"evaluation.prompt": "evaluation.profile", "evaluation.decoding": "evaluation.profile"}


def first_name(dotted: str, renamed: dict[str, str] = RENAMED) -> str:
    """The first name of the field `dotted`, before all renames."""
    for old, new in reversed(renamed.items()):
        dotted = _with_prefix(dotted, new, old)
    return dotted


def present_name(dotted: str, renamed: dict[str, str] = RENAMED) -> str:
    """The present name of the field `dotted`; `dotted` itself if it was not renamed."""
    dotted = JOINED.get(dotted, dotted)
    for old, new in renamed.items():
        dotted = _with_prefix(dotted, old, new)
    return dotted


def migrate(raw: dict[str, Any], *, origin: str, renamed: dict[str, str] = RENAMED) -> None:
    """Give every renamed field of the stored recipe `raw` its present name, in place.

    Raises:
        ConfigError: the recipe holds a field under both its old and its new name.
    """
    _name_scratch(raw)
    for old, new in renamed.items():
        _move(raw, old.split("."), new.split("."), f"{origin}: {old} and {new}")
    _drop_unread_shape(raw)
    _join_profile(raw, origin)


def _name_scratch(raw: dict[str, Any]) -> None:
    """Replace `base: tiny` by `base: scratch`."""
    model = raw.get("model")
    if isinstance(model, dict) and model.get("base") == "tiny":
        model["base"] = "scratch"


def _drop_unread_shape(raw: dict[str, Any]) -> None:
    """Remove the shape from recipes of published weights. Before `model.tiny` was split, they had an unused one."""
    model = raw.get("model")
    if isinstance(model, dict) and model.get("base", "scratch") != "scratch":
        model.pop("from_scratch", None)


def _join_profile(raw: dict[str, Any], origin: str) -> None:
    """Replace `evaluation.prompt` and `evaluation.decoding` by `evaluation.profile`, which joins both."""
    evaluation = raw.get("evaluation")
    if not isinstance(evaluation, dict) or not {"prompt", "decoding"} & evaluation.keys():
        return
    prompt, decoding = evaluation.pop("prompt", ""), str(evaluation.pop("decoding", ""))
    if "profile" in evaluation:
        raise ConfigError(
            f"{origin}: evaluation.profile is set, and evaluation.prompt or evaluation.decoding.",
            remedy="Remove the old fields: the profile joins both.",
        )
    if prompt == "lmms-eval":
        evaluation["profile"] = "lmms-eval"
    elif prompt == "muirbench" or decoding.startswith("official-"):
        evaluation["profile"] = "official"


def _with_prefix(dotted: str, prefix: str, instead: str) -> str:
    if dotted == prefix or dotted.startswith(f"{prefix}."):
        return instead + dotted.removeprefix(prefix)
    return dotted


def _move(node: Any, old: list[str], new: list[str], both: str) -> None:
    """Move the value at the path `old` to the path `new`. In a list, move it in each item."""
    if isinstance(node, list):
        for item in node:
            _move(item, old, new, both)
    elif isinstance(node, dict) and old[0] in node:
        if len(old) > 1 and len(new) > 1 and old[0] == new[0]:
            _move(node[old[0]], old[1:], new[1:], both)
        else:
            _take_and_set(node, old, new, both)


def _take_and_set(node: dict[str, Any], old: list[str], new: list[str], both: str) -> None:
    *parents, last = old
    holder: Any = node
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder:
        return
    value = holder.pop(last)
    *parents, last = new
    for parent in parents:
        node = node.setdefault(parent, {})
    if last in node:
        raise ConfigError(f"{both} are the same field, and both are set.", remedy="Remove the first one.")
    node[last] = value
