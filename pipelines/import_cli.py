"""The command that brings released weights into the store."""

from typing import Annotated

import typer

from mantis.store.base import default_store_url, open_store
from pipelines.terminal import Store, console, explained

app = typer.Typer()


@app.command("import-model")
def import_model(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of `mantis fetch-model`, or a Hugging Face model folder: a path, file:// or s3:// URL."
        ),
    ],
    family: Annotated[str, typer.Option(help="llava-clip, llava-siglip, idefics2 or fuyu.")],
    store: Store = "",
) -> None:
    """Take released weights into the store as a model that can be evaluated, after its tensors were checked."""
    with explained():
        from components.conversion.importing import import_model as work
        from mantis.models.weights.catalog import published_base, published_bases
        from mantis.models.weights.mirror import mirror_of

        opened = open_store(store or default_store_url())
        if source in published_bases():
            source = opened.uri(mirror_of(opened, published_base(source)).key)
        manifest = work(opened, source, family)
        console.print(f"{opened.uri(manifest.key)}  {manifest.summary['parameters']:,} parameters")
