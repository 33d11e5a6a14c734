"""The report step: one run, one page."""

import json
from collections.abc import Sequence

from components.core.artifacts import Kind, Manifest, Number
from components.core.steps import Run, Task, run_step
from components.reporting.addresses import benchmark_of

REVISION = 4  # raise when the same evaluations would give another page


def report(run: Run, evaluations: Sequence[Manifest]) -> Manifest:
    """report.html, report.md, summary.json and model-card.md of `run`; what cannot be found is said on the page.

    Raises:
        StoreError: the store is away.
    """
    task = Task(
        step="report",
        kind=Kind.REPORT,
        revision=REVISION,
        config={"run": run.id, "reference": run.recipe.evaluation.reference},
        inputs={benchmark_of(run.store, manifest): manifest for manifest in evaluations},
        address=lambda made: f"reports/{run.id}",
    )

    def work(prefix: str) -> dict[str, Number]:
        from components.reporting.card import card_with_scores
        from components.reporting.collect import collect
        from components.reporting.markdown import render_markdown
        from components.reporting.page import render_page
        from components.reporting.summary import summary

        collected = collect(run, evaluations)
        numbers = summary(collected)
        run.store.put(f"{prefix}/report.html", render_page(collected).encode())
        run.store.put(f"{prefix}/report.md", render_markdown(collected).encode())
        card = card_with_scores(run.store, evaluations, collected)
        if card:
            run.store.put(f"{prefix}/model-card.md", card.encode())
        text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
        run.store.put(f"{prefix}/summary.json", text.encode())
        return {
            "skills": len(collected.skills),
            "above_chance": sum(score.above_chance for score in collected.skills),
            "notes": len(collected.notes),
        }

    return run_step(run, task, work)
