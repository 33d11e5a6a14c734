"""Commands about models and their tokenizers."""

from typing import Annotated

import typer
from rich.table import Table

from components.core.artifacts import read_manifest
from components.core.errors import ConfigError
from components.core.store import default_store_url, open_store
from pipelines.terminal import Store, console, errors, explained, overrides_of

app = typer.Typer()


@app.command("fetch-model")
def fetch_model(
    names: Annotated[list[str] | None, typer.Argument(help="Published models; without one, what there is.")] = None,
    revision: Annotated[
        str, typer.Option(help="Of the hub's repository; without it, the one fetched before, or the newest.")
    ] = "",
    store: Store = "",
) -> None:
    """Mirror published weights into the store, once; recipes name them as model.base, model.vision, model.projector.

    Started again, it goes on where it was. HF_TOKEN opens gated models, HF_ENDPOINT names a mirror of the hub.
    """
    with explained():
        from components.models import bases

        opened = open_store(store or default_store_url())
        for name in names or []:
            manifest = bases.fetch_model(opened, name, revision=revision)
            size = sum(file.size for file in manifest.files) / 1e9
            console.print(f"{name}  {len(manifest.files)} files, {size:.2f} GB  {manifest.uri}")
        if not names:
            table = Table(box=None, header_style="bold", pad_edge=False)
            for title in ("model", "repository", "gated", "licence", "forbids", "in the store"):
                table.add_column(title)
            for name, base in bases.bases().items():
                there = read_manifest(opened, bases.mirror_prefix(name))
                revision = str(there.summary["revision"])[:12] if there else ""
                gated = "yes" if base.gated else ""
                table.add_row(name, base.repository, gated, base.license, ", ".join(base.forbids), revision)
            console.print(table)


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
        from pipelines.resolve import published_recipe, resolve_run

        resolved = resolve_run(recipe or published_recipe(family), overrides_of(set_ or [], None), "")[1]
        settings = resolved.model.model_copy(update={"family": family, "base": base or resolved.model.base})
        if settings.base == "tiny":
            raise ConfigError(
                f"model.base of {resolved.name} is tiny: its tokenizer is trained here.",
                remedy="Name a folder with the family's real tokenizer: --base FOLDER.",
            )
        from components.models import bases, loading, registry
        from components.models.verifying import cases, differences

        opened = open_store(store or default_store_url())
        bases.mirrors(settings, opened)
        settings = bases.located(settings, opened)
        kind = registry.family(family)
        tokenizer = loading.base_tokenizer(loading.model_folder(settings.base), kind.special_tokens())
        found = list(differences(kind, tokenizer, settings))
        for difference in found:
            errors.print(difference, markup=False)
        if found:
            errors.print("What differs is in components/models/prompts.yaml, encoding.py, or the family's module.")
            raise typer.Exit(1)
        console.print(f"{family}: tokens, labels and pixels of {len(list(cases()))} conversations are the same")
