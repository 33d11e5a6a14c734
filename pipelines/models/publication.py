"""Publishes a model on the hub: its files and card, with licence, lineage, proof and scores beside them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.conversion.model_card import model_name
from mantis.artifacts.layout import ArtifactKind
from mantis.artifacts.manifest import MANIFEST, Manifest, check_files, read_manifest
from mantis.config.recipe import Recipe
from mantis.errors import ConfigError, IntegrityError
from mantis.generation.answering_models import FamilyModel
from mantis.hashing import sha256_bytes
from mantis.hub.client import HubFile, Repository
from mantis.hub.upload import current_files, upload
from mantis.models.weights.catalog import PublishedWeights, named_bases
from mantis.runs.lineage import walk
from mantis.runs.step_runner import Run, open_run
from mantis.schema_versions import Form, load_rows
from mantis.store.base import ObjectStore
from mantis.store.opening import local_copy
from mantis.store.store_url import scheme_of
from pipelines.models.find_model import find_model

TARGET = re.compile(r"hf://(?:models/)?(?P<name>[\w.-]+/[\w.-]+)")
CARD = "README.md"
BESIDE = "provenance"  # the folder of lineage, proof, scores and recipe
PLACEHOLDER = "from_pretrained(FOLDER)"  # in the card of the store
KEPT = ".gitattributes"  # the hub's own file
LONGEST_NAME = 96  # of the hub


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The files for a repository, compared with those that it holds.

    Args:
        repository: ORG/NAME.
        files: from the path in the repository to a local file or its bytes.
        present: files that the repository has with the same content.
        replaced: files that it has with other content.
        foreign: files that the publication does not have.
        exists: whether the repository exists.
        licences: the published weights that the model was made from; empty for a model built from scratch.
        scores: number of rows with scores.
        warnings: sentences about what the publication tells strangers.
    """

    repository: str
    model: Manifest
    files: dict[str, Path | bytes]
    present: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    exists: bool = False
    licences: tuple[PublishedWeights, ...] = ()
    scores: int = 0
    warnings: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> tuple[str, ...]:
        """Files that the repository does not have."""
        return tuple(name for name in self.files if name not in self.present and name not in self.replaced)

    def size(self, name: str) -> int:
        """The bytes of a file."""
        source = self.files[name]
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    def send(self, *, private: bool, replace: bool) -> str:
        """Send the files. Returns the address of the commit.

        Raises:
            ConfigError: the repository holds other files, and `replace` is not set.
            InputError: the hub refuses, or cannot be reached.
        """
        if (self.replaced or self.foreign) and not replace:
            first = [*self.replaced, *self.foreign][:3]
            raise ConfigError(
                f"{self.repository} already holds {len(self.replaced) + len(self.foreign)} other files: "
                f"{', '.join(first)}.",
                remedy="Choose a new name. Or replace its content with --replace: its history stays.",
            )
        message = f"Publish the model {self.model.fingerprint} of the run {self.model.made_by.run}"
        return upload(self.repository, self.files, delete=self.foreign, private=private, message=message)


@contextmanager
def publication(store: ObjectStore, named: str, target: str) -> Iterator[Publication]:
    """Collect what `mantis model publish` sends, and compare it with the repository. Nothing is sent.

    Raises:
        ConfigError: the target is no name of the hub, or the model was not converted by a run.
        IntegrityError: a file of the model differs from its manifest.
        InputError: the hub cannot be reached.
    """
    repository = _repository(target)
    model = find_model(store, named)
    manifest = model.manifest
    if not isinstance(model, FamilyModel) or not manifest.made_by.run:
        raise ConfigError(
            f"{named!r} was not converted by a run, so it has neither a card nor a proof.",
            remedy="Name a run, or its model. Its owners publish imported weights.",
        )
    problems = check_files(store, manifest)
    if problems:
        raise IntegrityError(
            f"The model {manifest.key} is damaged: {problems[0]}.", remedy="Delete its folder, and run its step again."
        )
    run = open_run(manifest.made_by.run, store.url)
    _check_prefix(run.recipe, repository)
    with TemporaryDirectory(prefix="mantis-publish-") as temporary:
        yield _compared(_collected(run, manifest, repository, Path(temporary)))


def _repository(target: str) -> str:
    found = TARGET.fullmatch(target.rstrip("/"))
    parts = found["name"].split("/") if found else []
    wrong = any(part.startswith(("-", ".")) or part.endswith(("-", ".")) or ".." in part for part in parts)
    if found is None or wrong or "--" in found["name"] or len(found["name"]) > LONGEST_NAME:
        raise ConfigError(
            f"{target!r} is no model repository of the hub.",
            remedy="Use hf://ORG/NAME with letters, digits, '-', '_' and '.', e.g. hf://my-team/mantis-demo.",
        )
    return found["name"]


def _check_prefix(recipe: Recipe, repository: str) -> None:
    """Check the name that a licence requires: LLaMA 3's asks for `Llama 3` at its beginning."""
    name = repository.partition("/")[2]
    needed = model_name("", recipe.model).strip()
    if not _plain(name).startswith(_plain(needed)):
        raise ConfigError(
            f"The licence of the base requires a name that begins with {needed!r}, and {name!r} does not.",
            remedy=f"E.g. {needed.replace(' ', '-')}-{name}.",
        )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _collected(run: Run, manifest: Manifest, repository: str, temporary: Path) -> Publication:
    store = run.store
    folder = local_copy(store, manifest.key, temporary)
    scored = _scores(store, manifest)
    card = (folder / CARD).read_text(encoding="utf-8")
    beside = {
        "lineage.json": _lineage(store, manifest),
        "proof.json": _proof(manifest),
        "scores.json": scored,
        "manifest.json": manifest.model_dump(mode="json"),
    }
    files: dict[str, Path | bytes] = {file.name: folder / file.name for file in manifest.files if file.name != CARD}
    files[CARD] = _card(card, run.recipe, repository, scored).encode()
    files |= {f"{BESIDE}/{name}": json.dumps(value, indent=1).encode() for name, value in beside.items()}
    files[f"{BESIDE}/recipe.yaml"] = run.recipe.to_yaml().encode()
    return Publication(
        repository=repository,
        model=manifest,
        files=files,
        licences=tuple(named_bases(run.recipe.model).values()),
        scores=len(scored),
        warnings=tuple(_addresses(run.recipe)),
    )


def _compared(planned: Publication) -> Publication:
    repository = Repository(name=planned.repository, kind="model", aside="publish later.")
    found = current_files(repository)
    there = {file.path: file for file in found or () if file.path != KEPT}
    equal = {name for name, remote in there.items() if name in planned.files and _same(planned.files[name], remote)}
    return Publication(
        **{name: getattr(planned, name) for name in ("repository", "model", "files", "licences", "scores", "warnings")},
        exists=found is not None,
        present=tuple(sorted(equal)),
        replaced=tuple(sorted(set(there) & set(planned.files) - equal)),
        foreign=tuple(sorted(set(there) - set(planned.files))),
    )


def _same(source: Path | bytes, remote: HubFile) -> bool:
    from huggingface_hub.utils.sha import git_hash, sha_fileobj

    if remote.sha256:
        if isinstance(source, Path) and source.stat().st_size == remote.size:
            with source.open("rb") as opened:
                return bool(sha_fileobj(opened).hex() == remote.sha256)
        return isinstance(source, bytes) and remote.holds(sha256_bytes(source), "")
    data = source if isinstance(source, bytes) else source.read_bytes()
    return remote.holds("", git_hash(data))


def _lineage(store: ObjectStore, manifest: Manifest) -> list[dict[str, Any]]:
    """Every artifact that the model was made from: keys and fingerprints, no addresses."""
    return [
        {
            "depth": link.depth,
            "role": link.role,
            "kind": link.manifest.kind.value,
            "key": link.manifest.key,
            "fingerprint": link.manifest.fingerprint,
            "code_version": link.manifest.made_by.code_version,
            "inputs": {name: each.fingerprint for name, each in sorted(link.manifest.inputs.items())},
            "problems": list(link.problems),
        }
        for link in walk(store, manifest, check=False)
    ]


def _proof(manifest: Manifest) -> dict[str, Any]:
    """What the conversion proved, with the hash of each file of the model."""
    return {
        "statement": "Every tensor was compared with the checkpoint's, and logits with those of training.",
        "largest_logit_difference": manifest.summary.get("largest_logit_difference"),
        "precision": manifest.summary.get("precision"),
        "step": manifest.summary.get("step"),
        "checkpoint": {name: each.fingerprint for name, each in manifest.inputs.items()},
        "sha256": {file.name: file.sha256 for file in manifest.files},
    }


def _scores(store: ObjectStore, model: Manifest) -> list[dict[str, Any]]:
    """The rows of every evaluation of the model, each with the key of its evaluation."""
    rows = []
    for entry in store.list(f"{ArtifactKind.EVALUATION.folder}/{model.fingerprint}"):
        key, _, name = entry.key.rpartition("/")
        if name == MANIFEST and read_manifest(store, key) is not None:
            scores = f"{key}/scores.json"
            found = load_rows(Form.SCORES, "scores", store.get(scores), store.uri(scores))
            rows += [{"evaluation": key, **row} for row in found]
    return rows


def _card(text: str, recipe: Recipe, repository: str, scores: list[dict[str, Any]]) -> str:
    """The card of the store, with the repository's name, a table of the scores, and metadata for the hub's page."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    card = ModelCard(text.replace(PLACEHOLDER, f'from_pretrained("{repository}")'), ignore_metadata_errors=False)
    if scores:
        assert isinstance(card.data, ModelCardData)
        card.data.model_name = model_name(recipe.name, recipe.model)
        card.data.eval_results = [
            EvalResult(
                task_type="image-text-to-text",
                dataset_type=str(row["benchmark"]),
                dataset_name=str(row["benchmark"]),
                dataset_config=str(row["skill"]),
                dataset_revision=str(row["evaluation"]).rpartition("/")[2],
                metric_type="accuracy",
                metric_name=f"accuracy, {row['skill']}",
                metric_value=round(float(row["accuracy"]), 4),
            )
            for row in scores
        ]
        card.text = f"{card.text.rstrip()}\n\n{_table(scores)}"
    return str(card)


def _table(scores: list[dict[str, Any]]) -> str:
    several = max(Counter((row["benchmark"], row["skill"]) for row in scores).values()) > 1
    lines = [
        "## Scores",
        "",
        f"All figures: `{BESIDE}/scores.json`. Intervals are of 95 %.",
        "",
        f"| benchmark | skill | samples | accuracy | interval | chance |{' evaluation |' if several else ''}",
        f"|---|---|---|---|---|---|{'---|' if several else ''}",
    ]
    for row in scores:
        which = f" {row['evaluation'].rpartition('/')[2]} |" if several else ""
        lines.append(
            f"| {row['benchmark']} | {row['skill']} | {row['samples']:,} | {row['accuracy']:.1%} | "
            f"{row['low']:.1%} to {row['high']:.1%} | {row['chance']:.1%} |{which}"
        )
    return "\n".join([*lines, ""])


def _addresses(recipe: Recipe) -> Iterator[str]:
    """Fields that tell strangers about paths and buckets: the card and the recipe hold them."""
    for name, value in (
        ("data.source", recipe.data.source),
        ("evaluation.source", recipe.evaluation.source),
        ("model.base", recipe.model.base),
    ):
        if value and (scheme_of(str(value)) or str(value).startswith(("/", "~"))):
            yield f"The card shows {name} = {value}."
