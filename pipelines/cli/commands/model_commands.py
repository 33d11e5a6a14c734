"""`mantis model`: list published weights and their terms, fetch or import them, and verify their tokenizers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mantis.config.model_settings import SCRATCH
from mantis.errors import ConfigError
from mantis.models.weights.catalog import PublishedWeights, published_base, published_bases
from mantis.store.base import ObjectStore
from pipelines.cli.arguments import (
    FAMILY_HELP,
    RECIPE_HELP,
    AsJson,
    Changes,
    Model,
    Store,
    complete_family,
    complete_model,
    complete_recipe,
    examples,
    opened,
    overrides_given,
    recipe_argument,
)
from pipelines.cli.console import errors, ids, names, note, numbers, show, show_json, show_table, texts

if TYPE_CHECKING:
    from pipelines.models.publication import Publication

model = typer.Typer(help="Models: list, fetch, import, verify, chat, predict, serve, deploy, publish.")


@model.command("list", epilog=examples("mantis model list", "mantis model list --json"))
def list_(store: Store = "", as_json: AsJson = False) -> None:
    """List the published models, their licences, and what the store has of them."""
    from mantis.models.weights.mirror import mirrors

    there = opened(store)
    found = [(base, _mirrored(mirrors(there, base.name))) for base in published_bases().values()]
    if as_json:
        show_json({"models": [_base_data(base, mirrored) for base, mirrored in found]})
        return
    rows = []
    for base, mirrored in found:
        licence = f"{base.licence.identifier}{', not commercial' if base.licence.forbids else ''}"
        gated = ", gated" if base.gated else ""
        has = "; ".join(f"{each['revision'][:12]}, {each['bytes'] / 1e9:.2f} GB" for each in mirrored)
        rows.append((base.name, base.role, licence + gated, has))
    show_table([*ids("model"), *names("role"), *texts("licence", "in the store")], rows)


@model.command(epilog=examples("mantis model fetch idefics2-8b", "mantis model fetch idefics2-8b --revision COMMIT"))
def fetch(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Published models. `mantis model list` shows them.", autocompletion=complete_model
        ),
    ],
    revision: Annotated[
        str, typer.Option(help="A revision of the hub's repository. Without it: the pinned one, or the one begun with.")
    ] = "",
    store: Store = "",
) -> None:
    """Fetch published weights from the hub into the store. Started again, it continues.

    HF_TOKEN opens gated models. HF_ENDPOINT names a mirror. Recipes name models in model.base, vision and projector.
    """
    from mantis.models.weights.mirror import fetch_model

    there = opened(store)
    if revision and len(models) > 1:
        raise ConfigError("--revision is for one model.", remedy="Fetch one model at a time.")
    for base in [published_base(name) for name in models]:
        _show_terms(base)
        manifest = fetch_model(there, base.name, revision=revision)
        size = sum(file.size for file in manifest.files) / 1e9
        show(f"{base.name}  {len(manifest.files)} files, {size:.2f} GB  {there.uri(manifest.key)}")


@model.command(
    "import",
    epilog=examples(
        "mantis model import mantis-8b-siglip-llama3 --family llava-siglip",
        "mantis model import FOLDER --family idefics2",
    ),
)
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A fetched model, or a Hugging Face model folder: a path, file:// or s3:// URL.",
            autocompletion=complete_model,
        ),
    ],
    family: Annotated[str, typer.Option(help=FAMILY_HELP, autocompletion=complete_family)],
    store: Store = "",
) -> None:
    """Import released weights into the store as a model that can be evaluated. Its tensors are checked first."""
    from mantis.models.registry import check_family

    check_family(family)
    from components.conversion.importing import import_model
    from mantis.models.weights.mirror import mirror_of

    there = opened(store)
    if source in published_bases():
        source = there.uri(mirror_of(there, published_base(source)).key)
    manifest = import_model(there, source, family)
    show(f"{there.uri(manifest.key)}  {manifest.summary['parameters']:,} parameters")


@model.command(
    epilog=examples("mantis model verify llava-siglip", "mantis model verify idefics2 --base FOLDER"),
)
def verify(
    family: Annotated[str, typer.Argument(help=FAMILY_HELP, autocompletion=complete_family)],
    base: Annotated[
        str,
        typer.Option(
            help="A folder with the family's tokenizer, or a model: name, folder or URL. Without it: the recipe's.",
            autocompletion=complete_model,
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            help=f"Take model settings such as image sizes from this recipe. {RECIPE_HELP}",
            show_default="the family's",
            autocompletion=complete_recipe,
        ),
    ] = "",
    set_: Changes = None,
    store: Store = "",
) -> None:
    """Compare our tokens, labels and pixels with those of transformers, on a real vocabulary.

    Both encode conversations with zero to ten images in unusual places. The first difference of each is shown. No
    weights are needed: a folder with tokenizer.json will do.
    """
    from mantis.models.registry import check_family
    from pipelines.execution.resolve import published_recipe, resolve_run

    check_family(family)
    named = recipe_argument(recipe) if recipe else published_recipe(family)
    resolved = resolve_run(named, overrides_given(set_, None), "")[1]
    # Tokens and pixels need no tower and no projector.
    parts = {"family": family, "base": base or resolved.model.base, "vision": "", "projector": ""}
    settings = resolved.model.model_copy(update=parts)
    if settings.base == SCRATCH:
        raise ConfigError(
            f"model.base of {resolved.name} is {SCRATCH!r}: the run trains its tokenizer.",
            remedy="Name a folder with the family's real tokenizer: --base FOLDER.",
        )
    _verify(family, settings, opened(store))


@model.command(
    epilog=examples(
        "mantis model publish RUN hf://my-team/mantis-demo: shows what would be sent",
        "mantis model publish models:/demo@newest hf://my-team/mantis-demo --yes",
    ),
)
def publish(
    named: Model,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="hf://ORG/NAME, a model repository of the hub.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Send it. Without it the command only shows what it would send.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everybody read a new repository.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the files of a repository that holds others. Its history stays.")
    ] = False,
    store: Store = "",
) -> None:
    """Publish a model on the hub, with its card, licence, lineage, proof and scores.

    The first call shows what would be sent. `--yes` sends it in one commit, to a private repository unless it exists.
    A stopped upload continues: the hub keeps each large file that was sent. HF_TOKEN needs write access.
    """
    from mantis.hub.upload import check_token
    from pipelines.models.publication import publication

    with publication(opened(store), named, target) as planned:
        if yes:
            check_token()
        _show_publication(planned, public=public)
        if not yes:
            show("Nothing was sent. `--yes` publishes.")
        elif planned.exists and not (planned.missing or planned.replaced or planned.foreign):
            show("The repository already holds all of it.")
        else:
            show(planned.send(private=not public, replace=replace))


def _show_publication(planned: "Publication", *, public: bool) -> None:
    kind = "exists" if planned.exists else f"new, {'public' if public else 'private'}"
    show(f"hf://{planned.repository}  {kind}")
    for base in planned.licences:
        _show_terms(base)
    if not planned.licences:
        show("  no published weights in it")
    states = ((planned.missing, "new"), (planned.replaced, "replaces"), (planned.present, "is there"))
    rows = [(f"{planned.size(name):,}", name, state) for names_, state in states for name in sorted(names_)]
    rows += [("", name, "deletes") for name in planned.foreign]
    show_table([*numbers("bytes"), *ids("file"), *names("on the hub")], rows)
    show(f"{planned.scores} rows of scores.")
    for warning in planned.warnings:
        note(warning)


def _verify(family: str, settings: Any, store: ObjectStore) -> None:
    from mantis.models import registry
    from mantis.models.verification.compare_tokens import MOST_IMAGES, differences
    from mantis.models.verification.reference_processor import official_tokenizer
    from mantis.models.weights import loading, mirror

    settings = mirror.resolved(store, settings)
    kind, spec = registry.family(family), registry.family_spec(family)
    with loading.tokenizer_folder(settings.base) as folder:
        tokenizer = loading.base_tokenizer(folder, kind.special_tokens())
        official = official_tokenizer(folder, kind.special_tokens())
    found = list(differences(kind.processor(tokenizer, settings), spec.reference(), official=official))
    for difference in found:
        errors.print(difference, markup=False)
    if found:
        errors.print(f"The cause is in {spec.package} or mantis.models.processing.")
        raise typer.Exit(1)
    show(f"{family}: tokens, labels and pixels of {MOST_IMAGES + 1} conversations are the same")


def _show_terms(base: PublishedWeights) -> None:
    show(f"{base.name} ({base.role} of {', '.join(base.families)})  {base.repository}")
    show(f"  {base.licence.name}  {base.licence.url}")
    for request in base.licence.asks:
        show(f"  - {request}")


def _mirrored(mirrors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"revision": revision, "bytes": sum(file.size for file in manifest.files), "address": manifest.key}
        for revision, manifest in mirrors.items()
    ]


def _base_data(base: PublishedWeights, mirrored: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": base.name,
        "role": base.role,
        "families": list(base.families),
        "repository": base.repository,
        "licence": base.licence.identifier,
        "forbids": list(base.licence.forbids),
        "gated": base.gated,
        "mirrored": mirrored,
    }
