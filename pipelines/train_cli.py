"""`mantis train`: what a training needs, and what fits on the device that is here."""

from typing import Annotated, Any

import typer
from rich.table import Table

from pipelines.terminal import console, explained, overrides_of, recipe_argument

train = typer.Typer(no_args_is_help=True, help="Sizing of trainings.")
# A100, as in components/training/sizing/devices.yaml: memory, bf16 FLOP/s
CARDS = {"40 GB": (4.0e10, 3.12e14), "80 GB": (8.0e10, 3.12e14)}


@train.callback()
def main() -> None:
    """Sizing of trainings."""


@train.command()
def fit(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a store URL.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
    ranks: Annotated[int, typer.Option(min=1, help="GPUs of the estimate for the published models.")] = 16,
    memory: Annotated[
        float, typer.Option(min=0, help="GB that a rank may take here; needed without a GPU, else 90 % of its memory.")
    ] = 0,
) -> None:
    """Memory, checkpoint, disk and bandwidth of the published models; budgets measured on the device that is here."""
    from pipelines.execution.resolve import resolve_run

    with explained():
        resolved = resolve_run(recipe_argument(recipe), overrides_of(set_ or [], None), "")[1]
        console.print(_published(resolved, ranks))
        console.print(
            f"On {ranks} GPUs, estimated from shapes (docs/sizing.md says how). Disk: two checkpoints over all "
            "nodes. Bandwidth: a checkpoint is up in half the time to the next one, at 40 % MFU."
        )
        _measure(resolved, memory)


def _published(recipe: Any, ranks: int) -> Table:
    """A line for each published model and card."""
    from components.training.sizing import estimate

    settings = recipe.training
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("model", "A100", "states", "a token", "budget", "checkpoint", "disk", "upload"):
        table.add_column(title, justify="left" if title in ("model", "A100") else "right", no_wrap=True)
    chosen = {name: shape for name, shape in estimate.shapes().items() if name == recipe.name} or estimate.shapes()
    for name, shape in chosen.items():
        for card, (memory, peak) in CARDS.items():
            found = estimate.needs(
                shape,
                memory=memory,
                ranks=ranks,
                zero_stage=settings.zero_stage,
                cpu_offload=settings.cpu_offload,
            )
            rate = estimate.upload_bandwidth(
                shape, ranks=ranks, peak=peak, batch=settings.global_batch_size, every=settings.checkpoint_every
            )
            stored = estimate.checkpoint_bytes(shape)
            budget = f"{found.budget:,}" if found.budget else "none fits"
            table.add_row(
                name,
                card,
                f"{found.states / 1e9:.1f} GB",
                f"{found.per_token / 1e3:.0f} KB",
                budget,
                f"{stored / 1e9:.0f} GB",
                f"{2 * stored / 1e9:.0f} GB",
                f"{rate / 1e6:,.0f} MB/s",
            )
    return table


def _measure(recipe: Any, gigabytes: float) -> None:
    """Try on the device that is here, and say which budgets to set."""
    import torch

    from components.training.sizing.measure import fit as try_out

    memory = gigabytes * 1e9
    if not memory:
        if not torch.cuda.is_available():
            console.print("Nothing was measured: there is no GPU here. --memory GB measures on the CPU.")
            return
        memory = 0.9 * torch.cuda.get_device_properties(0).total_memory
    found = try_out(recipe, memory=memory)
    best = found.best
    console.print(
        f"Here, within {memory / 1e9:.1f} GB: [bold]training.token_budget={best.tokens} "
        f"training.patch_budget={best.patches}[/], {best.peak / 1e9:.2f} GB at the peak."
    )
