"""Published weights, their terms, and bringing them into the store; and whether their tokenizers are read right."""

from typing import Annotated

import typer
from rich.table import Table

from mantis.config.recipe import SCRATCH
from mantis.errors import ConfigError
from mantis.models.weights.catalog import PublishedWeights, published_base, published_bases
from mantis.store.base import ObjectStore, default_store_url, open_store
from pipelines.terminal import Store, console, errors, explained, overrides_of

app = typer.Typer()


@app.command("fetch-model")
def fetch_model(
    names: Annotated[list[str] | None, typer.Argument(help="Published models, as --list names them.")] = None,
    revision: Annotated[
        str, typer.Option(help="Of the hub's repository; without it, the pinned one, or the one begun with.")
    ] = "",
    list_: Annotated[bool, typer.Option("--list", help="Only show the models and what the store has of them.")] = False,
    store: Store = "",
) -> None:
    """Bring published weights from the hub into the store; started again, it goes on where it was.

    HF_TOKEN opens gated models, HF_ENDPOINT names a mirror. Recipes name them in model.base, vision and projector.
    """
    from mantis.models.weights.mirror import fetch_model as fetch

    with explained():
        opened = open_store(store or default_store_url())
        if list_:
            _show(opened)
            return
        if not names:
            raise ConfigError("No model was named.", remedy="`mantis fetch-model --list` shows them.")
        if revision and len(names) > 1:
            raise ConfigError("--revision is for one model.", remedy="Fetch them one at a time.")
        for base in [published_base(name) for name in names]:
            _show_terms(base)
            manifest = fetch(opened, base.name, revision=revision)
            size = sum(file.size for file in manifest.files) / 1e9
            address = opened.uri(manifest.key)
            console.print(f"{base.name}  {len(manifest.files)} files, {size:.2f} GB  {address}", soft_wrap=True)


@app.command("verify-tokenizer")
def verify_tokenizer(
    family: Annotated[
        str, typer.Argument(help="A model family: llava-clip, llava-siglip, idefics2, fuyu or flamingo.")
    ],
    base: Annotated[
        str, typer.Option(help="Name, folder or URL of the model whose tokenizer it is; without it, the recipe's.")
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="Whose model settings count, e.g. its image sizes.", show_default="the family's")
    ] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value of the recipe.")] = None,
    store: Store = "",
) -> None:
    """Compare our tokens, labels and pixels with those of transformers and the official rules, on real vocabularies.

    Conversations with none to ten images in odd places are encoded by both; the first difference of each is shown.
    """
    with explained():
        from pipelines.execution.resolve import published_recipe, resolve_run

        resolved = resolve_run(recipe or published_recipe(family), overrides_of(set_ or [], None), "")[1]
        settings = resolved.model.model_copy(update={"family": family, "base": base or resolved.model.base})
        if settings.base == SCRATCH:
            raise ConfigError(
                f"model.base of {resolved.name} is {SCRATCH!r}: the run trains its tokenizer.",
                remedy="Name a folder with the family's real tokenizer: --base FOLDER.",
            )
        from mantis.models import registry
        from mantis.models.verification.compare_tokens import MOST_IMAGES, differences
        from mantis.models.weights import loading, mirror

        opened = open_store(store or default_store_url())
        settings = mirror.resolved(opened, settings)
        kind = registry.family(family)
        tokenizer = loading.base_tokenizer(loading.model_folder(settings.base), kind.special_tokens())
        found = list(differences(kind, tokenizer, settings))
        for difference in found:
            errors.print(difference, markup=False)
        if found:
            errors.print(
                "What differs is in mantis/models/processing/chat_templates.yaml, encoding.py, or the family's module."
            )
            raise typer.Exit(1)
        console.print(f"{family}: tokens, labels and pixels of {MOST_IMAGES + 1} conversations are the same")


def _show_terms(base: PublishedWeights) -> None:
    console.print(
        f"[bold]{base.name}[/] ({base.role} of {', '.join(base.families)})  {base.repository}", soft_wrap=True
    )
    console.print(f"  {base.licence.name}  {base.licence.url}", soft_wrap=True)
    for request in base.licence.asks:
        console.print(f"  - {request}", markup=False, soft_wrap=True)


def _show(store: ObjectStore) -> None:
    from mantis.models.weights.mirror import mirrors

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("model", "licence", "in the store"):
        table.add_column(title, no_wrap=title != "in the store")
    for base in published_bases().values():
        there = [
            f"{revision[:12]}, {sum(file.size for file in manifest.files) / 1e9:.2f} GB"
            for revision, manifest in mirrors(store, base.name).items()
        ]
        licence = f"{base.licence.identifier}{', not commercial' if base.licence.forbids else ''}"
        gated = ", gated" if base.gated else ""
        table.add_row(base.name, licence + gated, "; ".join(there))
    console.print(table)
