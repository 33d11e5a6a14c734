"""`mantis gc`: delete what no run leads to."""

from typing import Annotated

import typer
from rich.table import Table

from mantis.store.base import default_store_url, delete_tree, open_store
from pipelines.terminal import Store, console, explained

app = typer.Typer()
KEEP_HOURS = 24.0


@app.command()
def gc(
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="A run whose records go too; may be given several times.")
    ] = None,
    keep_hours: Annotated[
        float, typer.Option(min=0, help="Unfinished results written to less than so long ago stay.")
    ] = KEEP_HOURS,
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it, only say what would be.")] = False,
    store: Store = "",
) -> None:
    """Say which results no run leads to, and with --delete remove them.

    What a remaining run leads to stays, and so does what you brought: sources, base weights, imported models; and for a
    day what is unfinished and in no run's records, since somebody may be at work on it. MLflow is not touched. Start no
    run meanwhile: one that is about to reuse a result would find it gone.
    """
    from mantis.runs import garbage_collection

    with explained():
        opened = open_store(store or default_store_url())
        forgotten = frozenset(forget or ())
        found = garbage_collection.garbage(opened, without=forgotten)
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("nothing leads to", overflow="fold")
        for title in ("objects", "GB"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", style="dim")
        for heap in found:
            note = "" if heap.whole else "unfinished, kept" if heap.kept(keep_hours) else "never finished"
            table.add_row(heap.key, f"{heap.objects:,}", f"{heap.bytes / 1e9:.3f}", note)
        if found:
            console.print(table)
        old = [heap for heap in found if not heap.kept(keep_hours)]
        total = f"{len(old)} results, {sum(heap.bytes for heap in old) / 1e9:.3f} GB"
        if len(old) < len(found):
            console.print(f"{len(found) - len(old)} unfinished ones are kept: written to within {keep_hours:g} hours")
        if not delete:
            console.print(f"{total}; --delete removes {'them' if old else 'nothing'}")
            return
        for run in sorted(forgotten):  # first: a record must not lead to what is gone
            delete_tree(opened, f"runs/{run}")
        for heap in old:
            garbage_collection.delete(opened, heap)
        console.print(f"deleted {total}")
