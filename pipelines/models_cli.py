"""Commands about models and their tokenizers."""

from typing import Annotated

import typer

from components.core.errors import ConfigError
from pipelines.terminal import console, errors, explained, overrides_of

app = typer.Typer()


@app.command("verify-tokenizer")
def verify_tokenizer(
    family: Annotated[
        str, typer.Argument(help="A model family: llava-clip, llava-siglip, idefics2, fuyu or flamingo.")
    ],
    base: Annotated[
        str, typer.Option(help="Folder or URL of the model whose tokenizer it is; without it, the recipe's.")
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="Whose model settings count, e.g. its image sizes.", show_default="the family's")
    ] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.field=value of the recipe.")] = None,
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
        from components.models import loading, registry
        from components.models.verifying import cases, differences

        kind = registry.family(family)
        tokenizer = loading.base_tokenizer(loading.model_folder(settings.base), kind.special_tokens())
        found = list(differences(kind, tokenizer, settings))
        for difference in found:
            errors.print(difference, markup=False)
        if found:
            errors.print("What differs is in components/models/prompts.yaml, encoding.py, or the family's module.")
            raise typer.Exit(1)
        console.print(f"{family}: tokens, labels and pixels of {len(list(cases()))} conversations are the same")
