"""`mantis train estimate`: the resources of a training, and the budgets that fit on this machine's device."""

from typing import Annotated, Any

import typer

from pipelines.cli.arguments import AsJson, Changes, RecipeName, examples, recipe_given
from pipelines.cli.console import ids, names, numbers, show, show_json, show_table, tell

train = typer.Typer(help="Sizing of trainings: estimate.")
# A100, as in components/training/sizing/devices.yaml: memory, bf16 FLOP/s
CARDS = {"40 GB": (4.0e10, 3.12e14), "80 GB": (8.0e10, 3.12e14)}


@train.command(
    epilog=examples(
        "mantis train estimate mantis-siglip",
        "mantis train estimate demo --memory 4",
        "mantis train estimate demo --json",
    )
)
def estimate(
    recipe: RecipeName,
    set_: Changes = None,
    ranks: Annotated[int, typer.Option(min=1, help="The number of GPUs of the estimate.")] = 16,
    memory: Annotated[
        float,
        typer.Option(min=0, help="GB that a rank may use here. Without a GPU nothing is measured unless it is given."),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate memory, checkpoint, disk and bandwidth of the published models, and measure budgets on this device."""
    from pipelines.execution.resolve import resolve_run

    resolved = resolve_run(*recipe_given(recipe, set_), "")[1]
    estimates = _estimates(resolved, ranks)
    if as_json:
        show_json({"ranks": ranks, "estimates": estimates, "measured": _measured(resolved, memory)})
        return
    rows = [
        (
            each["model"],
            each["card"],
            f"{each['states_bytes'] / 1e9:.1f} GB",
            f"{each['bytes_per_token'] / 1e3:.0f} KB",
            f"{each['token_budget']:,}" if each["token_budget"] else "none fits",
            f"{each['checkpoint_bytes'] / 1e9:.0f} GB",
            f"{each['disk_bytes'] / 1e9:.0f} GB",
            f"{each['upload_bytes_per_second'] / 1e6:,.0f} MB/s",
        )
        for each in estimates
    ]
    figures = numbers("states", "a token", "budget", "checkpoint", "disk", "upload")
    show_table([*ids("model"), *names("A100"), *figures], rows)
    show()
    tell(
        f"On {ranks} GPUs, estimated from shapes (docs/reference/sizing.md says how). "
        "Disk: two checkpoints over all nodes. "
        "Bandwidth: a checkpoint is uploaded in half the time to the next one, at 40 % MFU."
    )
    found = _measured(resolved, memory)
    if found is None:
        tell("Nothing was measured: there is no GPU here. --memory GB measures on the CPU.")
        return
    tell(
        f"Here, within {found['memory_bytes'] / 1e9:.1f} GB: training.token_budget={found['token_budget']} "
        f"training.patch_budget={found['patch_budget']}, {found['peak_bytes'] / 1e9:.2f} GB at the peak."
    )


def _estimates(recipe: Any, ranks: int) -> list[dict[str, Any]]:
    """Return a row for each published model and GPU type; sizes in bytes, budgets in tokens."""
    from components.training.sizing import estimate

    settings = recipe.training
    chosen = {name: shape for name, shape in estimate.shapes().items() if name == recipe.name} or estimate.shapes()
    rows = []
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
            rows.append(
                {
                    "model": name,
                    "card": card,
                    "states_bytes": found.states,
                    "bytes_per_token": found.per_token,
                    "token_budget": found.budget or None,
                    "checkpoint_bytes": stored,
                    "disk_bytes": 2 * stored,
                    "upload_bytes_per_second": rate,
                }
            )
    return rows


def _measured(recipe: Any, gigabytes: float) -> dict[str, Any] | None:
    """Measure the budgets that fit on this machine's device; None without a GPU and without `gigabytes`."""
    import torch

    from components.training.sizing.measure import fit

    memory = gigabytes * 1e9
    if not memory:
        if not torch.cuda.is_available():
            return None
        memory = 0.9 * torch.cuda.get_device_properties(0).total_memory
    best = fit(recipe, memory=memory).best
    return {
        "memory_bytes": memory,
        "token_budget": best.tokens,
        "patch_budget": best.patches,
        "peak_bytes": best.peak,
    }
