"""On every rank: the ZeRO step, the QLoRA step and the held-out loss of a family, in one group of processes.

compare_zero_step.py, compare_adapter_step.py and compare_held_out.py say what each compares. Starting the ranks costs
more than the steps of a tiny model, so a family starts them once.

Arguments: store URL, file for the figures, ids of runs. The mixture of each has held-out rows.
"""

import sys

from components.training.engine.deepspeed_engine import DistributedContext
from mantis.config.model_settings import ModelSettings
from mantis.config.training_settings import TrainingSettings
from mantis.dataset.mixture_reader import MixtureReader
from tests.helpers import compare_adapter_step, compare_held_out, compare_zero_step
from tests.helpers.compare_zero_step import Figures, main

ZERO_VARIANTS = (0, 1)  # ZeRO-3 with one sample a micro-step, and ZeRO-2 with several
HELD_OUT_VARIANTS = (0,)  # ZeRO-3


def every_check(
    model_settings: ModelSettings, training: TrainingSettings, reader: MixtureReader, ranks: DistributedContext
) -> dict[str, list[list[Figures]]]:
    given = (model_settings, training, reader, ranks)
    return {
        "zero": compare_zero_step.every_variant(*given, chosen=ZERO_VARIANTS),
        "adapter": [compare_adapter_step.train(*given)],
        "held out": compare_held_out.every_variant(*given, chosen=HELD_OUT_VARIANTS),
    }


if __name__ == "__main__":
    main(every_check, *sys.argv[1:])
