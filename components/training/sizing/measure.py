"""Finds the largest micro-step that fits on the local device by trials: `mantis train estimate`.

Each trial runs in its own process: `python -m components.training.sizing.measure RECIPE TOKENS`. A trial that runs out
of memory ends only itself, and its peak is its own. A trial trains one micro-step (forward, backward) in plain torch.
Its samples have one image and some text. The optimizer states, which ZeRO shards over ranks, are added by arithmetic.
"""

import io
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.training.sizing.estimate import GRADIENT, STATE
from mantis.config.recipe import Recipe, load_recipe_file
from mantis.errors import ConfigError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mantis.models.family import Processor
    from mantis.models.packed_batch import PackedBatch

FIRST = 1024  # tokens of the first trial
LARGEST = 2**20
TRIALS_BETWEEN = 3  # bisections between the largest size that fits and the smallest that does not
WORDS = 40
PICTURE = (640, 480)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One micro-step: its tokens and patches, and its peak of memory in bytes."""

    tokens: int
    patches: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The largest trial that fits into `memory` bytes, and all trials that fit."""

    memory: float
    best: Trial
    trials: tuple[Trial, ...]


def fit(recipe: Recipe, *, memory: float) -> Fit:
    """Double the tokens until a micro-step needs more than `memory` bytes, then bisect.

    Raises:
        ConfigError: not even the smallest micro-step fits.
    """
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="mantis-fit-") as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        good, bad, tokens = 0, LARGEST, FIRST
        while bad - good > good // 2**TRIALS_BETWEEN and tokens <= LARGEST:
            trial = _try(path, tokens)
            logger.info("%d tokens: %s", tokens, f"{trial.peak / 1e9:.2f} GB" if trial else "out of memory")
            if trial and trial.peak <= memory:
                trials.append(trial)
                good = tokens
            elif tokens == FIRST:
                break
            else:
                bad = tokens
            tokens = min(2 * tokens, (good + bad) // 2) if good else tokens
    if not trials:
        raise ConfigError(
            f"A micro-step of {FIRST} tokens does not fit into {memory / 1e9:.1f} GB.",
            remedy="Use more or larger devices, or training.cpu_offload.",
        )
    return Fit(memory=memory, best=max(trials, key=lambda trial: trial.tokens), trials=tuple(trials))


def _try(recipe: Path, tokens: int) -> Trial | None:
    """Run one trial in a separate process; None if it ran out of memory."""
    command = [sys.executable, "-m", "components.training.sizing.measure", str(recipe), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return Trial(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0 or "OutOfMemoryError" in done.stderr or "can't allocate memory" in done.stderr:
        return None
    raise ConfigError(
        f"A trial of {tokens} tokens failed: {done.stderr.strip().splitlines()[-1]}",
        remedy="Correct the recipe. The whole error is shown by "
        "`python -m components.training.sizing.measure RECIPE.yaml TOKENS`.",
    )


def run_trial(recipe: Recipe, tokens: int) -> Trial:
    """Train one micro-step of at least `tokens` tokens on the local device."""
    import torch

    from components.training.batching.collate import to_device
    from components.training.engine.parameter_groups import freeze
    from components.training.loss import LossHead
    from components.training.monitoring.step_metrics import peak_memory
    from mantis.models.registry import family

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if recipe.training.precision == "bf16" else torch.float32
    kind = family(recipe.model.family)
    processor = kind.processor(_tokenizer(recipe), recipe.model)
    model = kind.build(processor, seed=0).to(device, dtype)
    freeze(model, kind, recipe.training)
    if recipe.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch, patches = _micro_step(processor, tokens)
    held = int(batch.input_ids.numel())
    head = LossHead(model)
    head.sample_losses(kind, model, to_device(batch, device, dtype)).mean().backward()  # type: ignore[no-untyped-call]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ranks = recipe.training.nodes * recipe.training.gpus_per_node
    # The measured gradients have the model's precision; ZeRO sums them in fp32, and each rank holds a share.
    states = trained * (STATE + GRADIENT) // ranks
    return Trial(tokens=held, patches=patches, peak=peak_memory(device) + states)


def _tokenizer(recipe: Recipe) -> Any:
    from mantis.models.processing.tokenizer_training import train_tokenizer
    from mantis.models.registry import family
    from mantis.models.weights.loading import base_tokenizer, model_folder

    special, shape = family(recipe.model.family).special_tokens(), recipe.model.scratch_shape
    if shape is None:
        return base_tokenizer(model_folder(recipe.model.base), special)
    text = [f"{word} {word}" for word in map(str, range(10 * shape.vocabulary))]
    return train_tokenizer(text, vocabulary=shape.vocabulary, special_tokens=special)


def _micro_step(processor: "Processor", tokens: int) -> tuple["PackedBatch", int]:
    """A packed batch of at least `tokens` positions, and the number of its patches."""
    from PIL import Image

    from components.training.batching.collate import Prepared, collate
    from mantis.models.conversation import IMAGE_MARK, Conversation, ImageSize, Turn

    picture = io.BytesIO()
    Image.new("RGB", PICTURE, (90, 120, 60)).save(picture, "JPEG")
    size = ImageSize(width=PICTURE[0], height=PICTURE[1])
    turns = (
        Turn(role="user", content=f"{IMAGE_MARK} " + "what is this " * (WORDS // 3)),
        Turn(role="assistant", content="a plain picture " * (WORDS // 3)),
    )
    encoding = processor.encode(Conversation(id="fit", turns=turns, sizes=(size,)))
    sample = Prepared(id="fit", encoding=encoding, pixels=processor.preprocess([picture.getvalue()]))
    count = -(-tokens // len(encoding.input_ids))
    batch = collate([sample] * count, no_pixels=processor.preprocess([]))
    return batch, count * processor.image_patches(size)


if __name__ == "__main__":
    print(json.dumps(vars(run_trial(load_recipe_file(Path(sys.argv[1])), int(sys.argv[2])))))
