"""`mantis data`: list and show training data, plan an epoch, and fetch, prepare or generate data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mantis.errors import ConfigError
from pipelines.cli.arguments import (
    AsJson,
    Changes,
    Format,
    Name,
    RecipeName,
    Source,
    Store,
    complete_recipe,
    complete_run,
    complete_subset,
    examples,
    opened,
    recipe_given,
    with_format,
)
from pipelines.cli.console import console, errors, ids, names, note, numbers, show, show_json, show_table, tell, texts
from pipelines.cli.prepared_table import prepared_subsets, show_prepared

if TYPE_CHECKING:
    from mantis.config.recipe import Recipe
    from mantis.runs.step_runner import Run

SMALLEST_VOCABULARY = 300  # tokens: all bytes and a family's special tokens
data = typer.Typer(help="Training sets: list, fetch, plan, prepare, generate, show.")


@data.command(
    "list", epilog=examples("mantis data list", "mantis data list --source FOLDER", "mantis data list --json")
)
def list_(source: Source = None, format_: Format = None, store: Store = "", as_json: AsJson = False) -> None:
    """List the published sets, and what the store or --source has of each."""
    from components.data.listing import overview

    found = overview(opened(store), source, format_)
    if as_json:
        show_json({"subsets": [_subset_data(each) for each in found]})
        return
    columns = [
        *ids("subset"), *names("skill"), *numbers("rows", "images avg/max", "messages", "text tokens"),
        *texts("licence", "forbids", "there"),
    ]  # fmt: skip
    rows = []
    for each in found:
        known = each.published
        if known is None:
            rows.append((each.name, *[""] * 7, each.there))
            continue
        figures = (
            f"{known.rows:,}", f"{known.images.mean:g}/{known.images.max}", f"{known.messages:g}",
            _number(known.text_tokens),
        )  # fmt: skip
        terms = (known.licence.name, ", ".join(known.licence.forbids))
        rows.append((each.name, known.skill, *figures, *terms, each.there))
    show_table(columns, rows)


@data.command(
    epilog=examples("mantis data fetch nlvr2 dreamsim", "mantis data fetch nlvr2 --split train --split val"),
)
def fetch(
    subsets: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBSET", help="Published sets. `mantis data list` shows them.", autocompletion=complete_subset
        ),
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="train or val. May be given twice. Without it: train.")
    ] = None,
    revision: Annotated[
        str, typer.Option(help="A revision of the hub's repository. Without it: the one fetched before, or the newest.")
    ] = "",
    store: Store = "",
) -> None:
    """Fetch published sets from the hub into the store. Started again, it continues.

    HF_TOKEN opens gated sets. HF_ENDPOINT names a mirror. A recipe reads fetched sets with `data.source: fetched`.
    """
    from components.data.published.fetch import fetch_subset

    there = opened(store)
    for subset in subsets:
        manifest = fetch_subset(there, subset, splits=tuple(split or ["train"]), revision=revision)
        size = sum(file.size for file in manifest.files) / 1e9
        show(f"{subset}  {len(manifest.files)} files, {size:.2f} GB  {there.uri(manifest.key)}")


@data.command(
    epilog=examples(
        "mantis data plan mantis-siglip",
        "mantis data plan demo --source FOLDER",
        "mantis data plan mantis-siglip --json",
    )
)
def plan(
    recipe: RecipeName,
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    image_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens per image. Without it: those of the recipe's model for 640 x 480 pixels."),
    ] = None,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Show what an epoch of a recipe will hold, before it is computed: rows, samples, images, tokens, steps.

    Rows are counted in the prepared subset, else at the source. Else the published count is taken.
    """
    from components.data.listing import sizes_of
    from components.data.mixture.epoch_estimate import plan_epoch
    from components.data.published.published_sets import warnings
    from pipelines.execution.resolve import resolve_run

    _, resolved = resolve_run(*recipe_given(recipe, with_format(set_, format_), source), "")
    sizes = sizes_of(opened(store), resolved)
    per_image = image_tokens or _image_tokens(resolved)
    planned = plan_epoch(resolved, sizes, image_tokens=per_image)
    if as_json:
        show_json(_plan_data(planned, per_image, warnings(sizes)))
        return
    total = planned.total.samples
    columns = [
        *ids("subset"), *names("skill"),
        *numbers("rows", "drawn", "samples", "share", "images", "text tokens", "tokens"), *texts("how"),
    ]  # fmt: skip
    rows = [(line.name, line.skill, *_figures(line, total), line.note) for line in planned.lines]
    totals = [
        (line.name or "no known skill", "", *_figures(line, total), "") for line in (*planned.skills, planned.total)
    ]
    show_table(columns, [*rows, *totals], totals=len(totals))
    assumed = "as asked" if image_tokens else f"model.family {resolved.model.family}, base {resolved.model.base}"
    show()
    tell(
        f"{total:,} samples an epoch; {planned.epochs} epoch(s) at {planned.batch_size} samples: {planned.steps:,} "
        f"steps. Tokens are estimates from published averages, {per_image} per image ({assumed})."
    )
    for warning in warnings(sizes):
        note(warning)


@data.command(
    epilog=examples(
        "mantis data prepare demo",
        "mantis data prepare demo --source FOLDER --json",
        "mantis data prepare demo --source hf://datasets/ORG/NAME --format parquet/messages",
        "mantis data prepare mantis-siglip --store s3://bucket/prefix",
    )
)
def prepare(
    recipe: RecipeName,
    set_: Changes = None,
    source: Source = None,
    format_: Format = None,
    name: Name = "",
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Prepare the subsets of a recipe and assemble their mixture, without training.

    The table counts the rows of each subset: kept, dropped and repaired, by reason. The command fails if a subset drops
    more rows than `data.max_dropped` allows.

    `mantis run` and `mantis job` of the same recipe take both from the store.
    """
    from pipelines.cli.commands.run_commands import started

    def ended(run: "Run") -> None:
        if as_json:
            show_json({"subsets": prepared_subsets(run)})
        show_prepared(run, to=to)

    to = errors if as_json else console
    started(recipe, with_format(set_, format_), source, name, store, "data-preparation", to=to, ended=ended)


@data.command(
    epilog=examples("mantis data generate FOLDER", "mantis data generate FOLDER --conversations 1000 --seed 1")
)
def generate(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    seed: Annotated[int, typer.Option(help="Another seed gives other images and questions.")] = 0,
    conversations: Annotated[int, typer.Option(min=10, help="Training rows of all subsets together.")] = 20_000,
    samples_per_skill: Annotated[int, typer.Option(min=1, help="Held-out samples of each skill.")] = 500,
) -> None:
    """Write the demo's generated tasks as JPEGs and JSON, in the form that --source reads."""
    from mantis.synthetic import write_demo_data

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"folder = {str(folder)!r} is a file.", remedy="Name a new folder.")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"folder = {str(folder)!r} is not empty.", remedy="Name a new folder.")
    write_demo_data(folder, seed=seed, conversations=conversations, samples_per_skill=samples_per_skill)
    show(f"wrote {folder}; train on it: mantis run demo --source {folder}")


SHOW_EXAMPLES = examples(
    "mantis data show FOLDER: the first rows of a source",
    "mantis data show train.jsonl --row 17: what the model will see of row 17",
    "mantis data show nlvr2 --recipe mantis-siglip: a prepared set, with the tokens of that model",
    "mantis data show RUN --step 100 --html step.html: a training step as a page",
    "mantis data show FOLDER --json",
)


@data.command("show", epilog=SHOW_EXAMPLES)
def show_data(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A folder, file or URL with rows; the subset or the key of a prepared set; or the id of a run. "
            "`./NAME` is always a folder or a file.",
            autocompletion=complete_run,
        ),
    ],
    step: Annotated[
        int | None, typer.Option(min=1, help="A step of the run WHAT, counted from 1. Without it: step 1.")
    ] = None,
    row: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Show this row, counted from 0, kept or refused. May be given several times."),
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="The number of rows or samples that are shown.")] = 5,
    read: Annotated[int, typer.Option(min=1, help="The number of rows that are read for the plots.")] = 1000,
    subset: Annotated[str, typer.Option(help="A subset of the source WHAT, if it has several.")] = "",
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="The recipe whose limits, model and chat template read the rows. A run has its own.",
            autocompletion=complete_recipe,
        ),
    ] = "demo",
    set_: Changes = None,
    format_: Format = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that opens without a network.")
    ] = None,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Show training data as the model will see it: conversations, images, the loss mask of each token, drops.

    A step of a run shows its packed micro-steps, too. A refused row shows the reason, the remedy, and its content.
    """
    from components.data.showing.selection import Selection
    from components.reporting.render.data_page import render_data
    from pipelines.cli.data_text import show_found
    from pipelines.cli.show_target import ShowRequest, show_target
    from pipelines.execution.resolve import resolve_run

    _, resolved = resolve_run(*recipe_given(recipe, with_format(set_, format_)), "")
    chosen = Selection(read=read, shown=shown, rows=tuple(row or ()))
    asked = ShowRequest(what=what, subset=subset, step=step, chosen=chosen)
    found = show_target(opened(store), resolved, asked)
    if html is not None:
        try:
            html.write_text(render_data(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html {html} cannot be written: {error}.", remedy="Name another file.") from None
        show(f"wrote {html}", to=errors if as_json else console)
    if as_json:
        show_json(found.model_dump(mode="json"))
    elif html is None:
        show_found(found)


def _subset_data(each: Any) -> dict[str, Any]:
    known = each.published
    return {
        "name": each.name,
        "there": each.there,
        "skill": known.skill if known else None,
        "rows": known.rows if known else None,
        "images_mean": known.images.mean if known else None,
        "images_max": known.images.max if known else None,
        "messages": known.messages if known else None,
        "text_tokens": known.text_tokens if known else None,
        "licence": known.licence.name if known else None,
        "forbids": list(known.licence.forbids) if known else [],
    }


def _plan_data(planned: Any, per_image: int, warnings: list[str]) -> dict[str, Any]:
    return {
        "subsets": [_line_data(line) | {"skill": line.skill, "how": line.note} for line in planned.lines],
        "skills": [_line_data(line) for line in planned.skills],
        "total": _line_data(planned.total),
        "epochs": planned.epochs,
        "batch_size": planned.batch_size,
        "steps": planned.steps,
        "tokens_per_image": per_image,
        "warnings": warnings,
    }


def _line_data(line: Any) -> dict[str, Any]:
    fields = ("name", "rows", "drawn", "samples", "images", "text_tokens", "tokens")
    return {field: getattr(line, field) for field in fields}


def _figures(line: Any, samples: int) -> tuple[str, ...]:
    share = f"{100 * line.samples / samples:.1f} %" if samples else "-"
    counts = (f"{line.rows:,}", f"{line.drawn:,}", f"{line.samples:,}", share)
    return (*counts, _number(line.images), _number(line.text_tokens), _number(line.tokens))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,.0f}"


def _image_tokens(recipe: "Recipe") -> int:
    """Positions of the language model for an image of 640 x 480 pixels, which no vocabulary changes."""
    from mantis.models.conversation import ImageSize
    from mantis.models.processing.tokenizer_training import train_tokenizer
    from mantis.models.registry import family

    kind = family(recipe.model.family)
    tokenizer = train_tokenizer([], vocabulary=SMALLEST_VOCABULARY, special_tokens=kind.special_tokens())
    return kind.processor(tokenizer, recipe.model).image_tokens(ImageSize(width=640, height=480))
