"""Which parameters are trained, with which learning rate and weight decay: the parameter groups of AdamW."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from components.training.engine.adapter_training import in_module, is_adapter
from mantis.config.training_settings import Part, TrainingSettings
from mantis.errors import ConfigError, TrainingError, did_you_mean
from mantis.models.family import Family


class ParameterGroup(BaseModel):
    """Trained parameters that share a learning rate and a weight decay; the checkpoint's state.json holds them.

    Args:
        parts: the parts of the model that the parameters belong to.
        learning_rate: peak of the schedule.
        weight_decay: 0 for norms and biases.
        parameters: names in the model's order, which is also their order in ZeRO's flat buffers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[Part, ...]
    learning_rate: float
    weight_decay: float
    parameters: tuple[str, ...]


def freeze(model: nn.Module, family: Family, settings: TrainingSettings) -> None:
    """Freeze all parameters but the adapters, those of parts that train whole, and those of saved modules.

    Raises:
        ConfigError: the recipe trains nothing, or names a module to save that is not there or is trained anyway.
    """
    saved = _saved(model, family, settings)
    for name, parameter in model.named_parameters():
        whole = family.parameter_group(name) in settings.whole_parts
        parameter.requires_grad_(is_adapter(name) or whole or name in saved)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"training.train = {list(settings.train)} leaves nothing to train.",
            remedy="Name at least one of vision, projector, text.",
        )


def parameter_groups(model: nn.Module, family: Family, settings: TrainingSettings) -> tuple[ParameterGroup, ...]:
    """Groups of the trained parameters; norms and biases do not decay, as in transformers' Trainer.

    Parts with equal settings share a group, because ZeRO updates one group after another.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    places = {name: _place(name, parameter, family, settings) for name, parameter in trained}
    weights_first = sorted(trained, key=lambda pair: pair[1].ndim < 2)
    groups = []
    for place in dict.fromkeys(places[name] for name, _ in weights_first):
        names = tuple(name for name in places if places[name] == place)
        parts = tuple(dict.fromkeys(family.parameter_group(name) for name in names))
        rate, decay = place
        groups.append(ParameterGroup(parts=parts, learning_rate=rate, weight_decay=decay, parameters=names))
    return tuple(groups)


def adamw_groups(model: nn.Module, groups: Iterable[ParameterGroup]) -> list[dict[str, Any]]:
    """The groups as torch's optimizers take them."""
    parameters = dict(model.named_parameters())
    return [
        {
            "params": [parameters[name] for name in group.parameters],
            "lr": group.learning_rate,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]


def check_same(saved: Sequence[ParameterGroup] | None, own: Sequence[ParameterGroup], *, origin: str) -> None:
    """Check that the groups of a checkpoint are those of this training; None: it predates stored groups.

    ZeRO's flat buffers say nothing of the parameters in them, so other groups would load without an error.

    Raises:
        TrainingError: a part, its learning rate, its weight decay, or a parameter differs.
    """
    if saved is None or tuple(saved) == tuple(own):
        return
    remedy = "Restore the recipe that saved it, or delete this folder to train from the start."
    was, now = _by_part(saved), _by_part(own)
    for part in sorted({*was, *now}):
        before, after = was.get(part), now.get(part)
        if before != after:
            raise TrainingError(
                f"{origin} was trained with other parameter groups: {part} has {_said(before)} there, and "
                f"{_said(after)} in this recipe (training.train, training.parts.{part}).",
                remedy=remedy,
            )
    first = next(name for name in _names(saved) + _names(own) if _standing(name, saved) != _standing(name, own))
    raise TrainingError(
        f"{origin} was trained with other parameter groups: {first} is in {_standing(first, saved)} there, and in "
        f"{_standing(first, own)} here.",
        remedy=remedy,
    )


def _place(name: str, parameter: nn.Parameter, family: Family, settings: TrainingSettings) -> tuple[float, float]:
    """Peak learning rate and weight decay of a parameter."""
    part = family.parameter_group(name)
    return settings.peak_rate(part), settings.decay(part) if parameter.ndim >= 2 else 0.0


def _saved(model: nn.Module, family: Family, settings: TrainingSettings) -> frozenset[str]:
    """Names of the parameters in `modules_to_save`, each checked against the parts that are trained."""
    found: set[str] = set()
    for module in settings.adapter.modules_to_save if settings.adapter else ():
        named = [name for name, _ in model.named_parameters() if in_module(name, module)]
        field = f"training.adapter.modules_to_save names {module!r}"
        if not named:
            raise _no_such_module(model, module, field)
        for part in dict.fromkeys(family.parameter_group(name) for name in named):
            if part not in settings.train:
                raise ConfigError(
                    f"{field}, which is of {part}, but training.train = {list(settings.train)} freezes {part}.",
                    remedy=f"Add {part} to training.train, or remove {module} from modules_to_save.",
                )
            if part in settings.whole_parts:
                raise ConfigError(
                    f"{field}, which is of {part}, and training.adapter.whole trains {part} whole.",
                    remedy=f"Remove {module} from modules_to_save, or {part} from whole.",
                )
        found.update(named)
    return frozenset(found)


def _no_such_module(model: nn.Module, module: str, field: str) -> ConfigError:
    own = dict(model.named_parameters())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if in_module(name, module):
            tied = next(other for other, weight in own.items() if weight is parameter)
            return ConfigError(f"{field}, whose weights are those of {tied}.", remedy="Name the module of that tensor.")
    known = dict.fromkeys(name.split(".")[-2] for name in own if "." in name)
    return ConfigError(
        f"{field}, but the model has no such module with weights.",
        remedy=f"{did_you_mean(module, known)}Modules: {', '.join(list(known)[:20])}.",
    )


def _by_part(groups: Iterable[ParameterGroup]) -> dict[str, tuple[float, float]]:
    """Peak learning rate, and weight decay of the weights, by part."""
    found: dict[str, tuple[float, float]] = {}
    for group in groups:
        for part in group.parts:
            rate, decay = found.get(part, (group.learning_rate, 0.0))
            found[part] = (rate, max(group.weight_decay, decay))
    return found


def _said(values: tuple[float, float] | None) -> str:
    return "no trained parameter" if values is None else f"learning rate {values[0]} and weight decay {values[1]}"


def _names(groups: Iterable[ParameterGroup]) -> list[str]:
    return [name for group in groups for name in group.parameters]


def _standing(name: str, groups: Iterable[ParameterGroup]) -> str:
    """Everything that the groups say of a parameter, in words."""
    for index, group in enumerate(groups):
        if name in group.parameters:
            values = f"learning rate {group.learning_rate}, weight decay {group.weight_decay}"
            place = f"position {group.parameters.index(name)} of group {index}"
            return f"{place} ({', '.join(group.parts)}; {values})"
    return "no group"
