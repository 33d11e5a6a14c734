from components.reporting.step import report
from tests.fixtures.reporting import Stored


def test_the_models_card_gets_its_scores_before_its_licence(stored: Stored) -> None:
    model = stored.artifacts["model"].key
    stored.run.store.put(f"{model}/README.md", b"# demo\n\n## Training\n\n## Licence\n\nApache-2.0\n")
    manifest = report(stored.run, stored.evaluations)
    assert "model-card.md" in {file.name for file in manifest.files}
    card = stored.run.store.get(f"{manifest.key}/model-card.md").decode()
    places = [card.index(part) for part in ("## Training", "## Scores by skill", "95 % interval", "## Licence")]
    assert places == sorted(places)
    assert card.endswith("Apache-2.0\n")
