"""`mantis data` and `mantis fetch`: what there is to train on, what an epoch will hold, bringing it here."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mantis.store.base import default_store_url, open_store
from pipelines.terminal import Store, explained, overrides_of, recipe_argument

data = typer.Typer(no_args_is_help=True, help="The published training sets, and what an epoch of a recipe holds.")
console = Console(highlight=False, soft_wrap=True)

Source = Annotated[str | None, typer.Option("--source", help="Raw data: a folder or a store URL.")]


@data.command("list")
def list_(source: Source = None, store: Store = "") -> None:
    """The published sets, and beside each what is there: at --source, fetched or prepared in the store."""
    from components.data.published.listing import overview

    with explained():
        table = _table(
            ("subset", "skill", "rows", "images avg/max", "messages", "text tokens", "licence", "forbids", "there"),
            left=2,
        )
        for row in overview(open_store(store or default_store_url()), source):
            known = row.published
            if known is None:
                table.add_row(row.name, "", "", "", "", "", "", "", row.there)
                continue
            images = f"{known.images.mean:g}/{known.images.max}"
            licence, forbids = known.licence.name, ", ".join(known.licence.forbids)
            messages, tokens = f"{known.messages:g}", _number(known.text_tokens)
            table.add_row(
                row.name, known.skill, f"{known.rows:,}", images, messages, tokens, licence, forbids, row.there
            )
        console.print(table)


@data.command()
def prepare(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a store URL.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
    source: Source = None,
    name: Annotated[str, typer.Option(help="The run's id; without it, it follows from the recipe.")] = "",
    store: Store = "",
) -> None:
    """Prepare a recipe's subsets and assemble their mixture here, without training.

    `mantis run` and `mantis job` of the same recipe take both from the store.
    """
    from pipelines.execution.local_run import start

    with explained():
        start(recipe, set_ or [], source, name, store, "data-preparation")


@data.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a YAML file, or a store URL.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value")] = None,
    source: Source = None,
    image_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Positions an image takes; without it, what the recipe's model says of 640 x 480."),
    ] = None,
    store: Store = "",
) -> None:
    """What an epoch of a recipe will contain, before anything is computed: rows, samples, images, tokens, steps.

    Rows are those of the prepared subset where there is one, else of the source, else the published count.
    """
    from components.data.mixture.epoch_estimate import plan_epoch
    from components.data.published.listing import sizes_of
    from components.data.published.published_sets import warnings
    from pipelines.execution.resolve import resolve_run

    with explained():
        _, resolved = resolve_run(recipe_argument(recipe), overrides_of(set_ or [], source), "")
        sizes = sizes_of(open_store(store or default_store_url()), resolved)
        per_image = image_tokens or _image_tokens(resolved)
        assumed = "as asked" if image_tokens else f"model.family {resolved.model.family}, base {resolved.model.base}"
        planned = plan_epoch(resolved, sizes, image_tokens=per_image)
        table = _table(
            ("subset", "skill", "rows", "drawn", "samples", "share", "images", "text tokens", "tokens", "how"), left=2
        )
        for line in planned.lines:
            table.add_row(line.name, line.skill, *_figures(line, planned.total.samples), line.note)
        table.add_section()
        for line in (*planned.skills, planned.total):
            table.add_row(f"[bold]{line.name or 'no known skill'}[/]", "", *_figures(line, planned.total.samples), "")
        console.print(table)
        console.print(
            f"{planned.total.samples:,} samples an epoch; {planned.epochs} epoch(s) at {planned.batch_size} samples: "
            f"[bold]{planned.steps:,} steps[/]. Tokens are estimates from published averages, "
            f"{per_image} per image ({assumed})."
        )
        for warning in warnings(sizes):
            console.print(f"[yellow]note[/] {warning}")


def fetch(
    subsets: Annotated[list[str], typer.Argument(help="Published subsets, as `mantis data list` names them.")],
    split: Annotated[list[str] | None, typer.Option(help="train, val; train alone without it.")] = None,
    revision: Annotated[
        str, typer.Option(help="Of the hub's repository; without it, the one fetched before, or the newest.")
    ] = "",
    store: Store = "",
) -> None:
    """Bring published subsets from the hub into the store; started again, it goes on where it was.

    HF_TOKEN opens gated sets, HF_ENDPOINT names a mirror. Recipes read what was fetched by `data.source: fetched`.
    """
    from components.data.published.fetch import fetch_subset

    with explained():
        opened = open_store(store or default_store_url())
        for subset in subsets:
            manifest = fetch_subset(opened, subset, splits=tuple(split or ["train"]), revision=revision)
            size = sum(file.size for file in manifest.files) / 1e9
            console.print(f"{subset}  {len(manifest.files)} files, {size:.2f} GB  {opened.uri(manifest.key)}")


def _table(titles: tuple[str, ...], *, left: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    words = {"licence", "forbids", "there", "how"}
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < left or title in words else "right", no_wrap=place == 0)
    return table


def _figures(line: Any, samples: int) -> tuple[str, ...]:
    share = f"{100 * line.samples / samples:.1f} %" if samples else "-"
    counts = (f"{line.rows:,}", f"{line.drawn:,}", f"{line.samples:,}", share)
    return (*counts, _number(line.images), _number(line.text_tokens), _number(line.tokens))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,.0f}"


def _image_tokens(recipe: Any) -> int:
    from mantis.models.conversation import ImageSize
    from mantis.models.registry import family

    return family(recipe.model.family).image_tokens(ImageSize(width=640, height=480), recipe.model)
