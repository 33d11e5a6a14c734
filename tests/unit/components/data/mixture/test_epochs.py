import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.mixture.epoch_estimate import EpochEstimate, SubsetSize, plan_epoch
from components.data.mixture.epochs import SourceRows, epoch_of, mixtures, samples_per_epoch, written_out
from components.data.published.published_sets import published, warnings
from mantis.config.data_settings import DataSettings, Order, SubsetSettings
from mantis.config.recipe import Recipe
from mantis.config.training_settings import TrainingSettings
from mantis.errors import ConfigError
from pipelines.execution.resolve import resolve_run, shipped_recipes

THE_14 = {
    "llava_665k_multi": 312_611,
    "lrv_multi": 8_453,
    "coinstruct": 150_918,
    "dreamsim": 15_941,
    "spot-the-diff": 8_007,
    "birds-to-words": 2_649,
    "nlvr2": 86_373,
    "iconqa": 64_462,
    "contrastive_caption": 35_984,
    "imagecode": 16_594,
    "multi_vqa": 4_993,
    "visual_story_telling": 6_661,
    "nextqa": 3_870,
    "star": 3_032,
}
MIXED_IN = {"dvqa": 200_000, "docvqa": 39_463, "chartqa": 28_299}
SKILLS = {"coref": 321_064, "compare": 177_515, "reason": 208_406, "temporal": 13_563}
# All that `Dataset.from_dict(...).shuffle(seed=42)` of datasets 3.6.0 makes of 17 rows.
SHUFFLED_17 = [12, 16, 11, 6, 10, 9, 7, 3, 0, 15, 5, 2, 4, 14, 1, 13, 8]


def whole(sizes: dict[str, int]) -> dict[str, SourceRows]:
    """Subsets that keep every row of their sources."""
    return {name: SourceRows.all_of(rows) for name, rows in sizes.items()}


def recipe_of(**data: Any) -> Recipe:
    return written_out(Recipe(name="test", data=DataSettings(**data)))


def shipped(name: str, **overrides: Any) -> Recipe:
    return resolve_run(name, overrides, "")[1]


def planned(recipe: Recipe) -> EpochEstimate:
    sizes = {
        subset.name: SubsetSize(rows=published()[subset.name].rows, known="published") for subset in recipe.data.subsets
    }
    return plan_epoch(recipe, sizes, image_tokens=64)


def test_the_table_is_that_of_the_paper() -> None:
    rows = {name: subset.rows for name, subset in published().items()}
    assert {name: rows[name] for name in THE_14} == THE_14
    assert {name: rows[name] for name in MIXED_IN} == MIXED_IN
    assert sum(THE_14.values()) == 720_548
    assert set(rows) == {*THE_14, *MIXED_IN, "llava_pretrain"}
    of_skill = {skill: sum(THE_14[name] for name in THE_14 if published()[name].skill == skill) for skill in SKILLS}
    assert of_skill == SKILLS
    for name, subset in published().items():
        assert subset.licence.name
        assert subset.licence.origin or subset.licence.name == "unknown", name
        assert subset.images.mean <= subset.images.max


def test_mantis_instruct_unbalanced_is_767k_samples_and_6_0k_steps() -> None:
    plan = planned(shipped("data-mantis-instruct"))
    assert plan.total.samples == 767_392
    assert plan.steps == 5_996
    samples = {line.name: line.samples for line in plan.lines}
    assert samples == THE_14 | MIXED_IN | {"coinstruct": 100_000, "dvqa": 30_000}
    assert [line.note for line in plan.lines if line.name == "visual_story_telling"] == [
        "rows published; rows of more than 20 images will be dropped"
    ]


def test_mantis_instruct_balanced_is_844k_samples_and_6_6k_steps() -> None:
    plan = planned(shipped("data-mantis-instruct-balanced"))
    assert plan.total.samples == 844_121
    assert plan.steps == 6_595
    lengths = THE_14 | MIXED_IN | {"coinstruct": 100_000, "dvqa": 30_000}
    roots = sum(math.sqrt(length) for length in lengths.values())
    for line in plan.lines:
        share = 1.1 * math.sqrt(lengths[line.name]) / roots
        assert line.samples == pytest.approx(767_392 * share, abs=1)


def test_the_skill_ablation_is_cumulative_and_capped() -> None:
    names = [name for name in shipped_recipes() if name.startswith("data-ablation-")]
    arms = [planned(shipped(name, **{"data.sampling": "none"})) for name in names]
    skills = ["coref", "compare", "reason", "temporal"]
    for number, plan in enumerate(arms, 1):
        assert {line.skill for line in plan.lines} == set(skills[:number])
    lengths = [{line.name: line.samples for line in plan.lines} for plan in arms]
    caps = {"llava_665k_multi": 50_000, "coinstruct": 20_000}
    caps |= dict.fromkeys(("nlvr2", "iconqa", "contrastive_caption", "imagecode"), 15_000)
    assert lengths[-1] == THE_14 | caps
    assert shipped(names[-1]).data.subset("visual_story_telling").max_images == 8
    for before, after in itertools.pairwise(lengths):
        assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("recipe", "skills", "total", "lrv", "llava_percent"),
    [
        ("ablation-idefics2", "[coref]", 353_169, 49_873, 86),
        ("ablation-idefics2", "[coref, compare, reason, temporal]", 736_587, 28_570, 24),
        ("ablation-siglip", "[coref]", 64_297, 18_734, 71),
        ("ablation-siglip", "[coref, compare, reason, temporal]", 201_959, 12_515, 15),
    ],
)
def test_the_arms_of_the_ablations_have_the_official_sizes(
    recipe: str, skills: str, total: int, lrv: int, llava_percent: int
) -> None:
    """The official ablations sampled by square roots (dataset_balancing of mantis/train)."""
    plan = planned(shipped(recipe, **{"data.skills": skills}))
    assert plan.total.samples == total
    samples = {line.name: line.samples for line in plan.lines}
    assert samples["lrv_multi"] == lrv
    assert round(100 * samples["llava_665k_multi"] / total) == llava_percent


def test_stage_1_is_llava_pretrain() -> None:
    plan = planned(shipped("data-pretrain"))
    assert (plan.total.samples, plan.batch_size, plan.steps) == (558_128, 256, 2_181)


@pytest.mark.parametrize("name", list(mixtures()))
def test_mixtures_name_published_subsets(name: str) -> None:
    assert {subset.name for subset in mixtures()[name].subsets} <= set(published())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_means_the_same_again(name: str) -> None:
    recipe = shipped(name)
    assert written_out(recipe) == recipe
    assert resolve_run(recipe.to_yaml(), {}, "")[1] == recipe


def test_a_mixture_is_overridden_field_by_field() -> None:
    recipe = shipped("data-mantis-instruct", **{"data.skills": "[coref]", "data.sampling": "sqrt"})
    assert [subset.name for subset in recipe.data.subsets] == ["lrv_multi", "llava_665k_multi"]
    assert shipped("data-mantis-instruct", **{"data.mixture": "null"}).data.subsets == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"mixture": "nonsense"}, r"data\.mixture = 'nonsense' is no mixture"),
        ({"mixture": "ablation", "skills": ("doc",)}, r"data\.skills names doc"),
        ({"skills": ("coref",), "source": "/of/mine"}, r"An empty data\.subsets"),
        ({"skills": ("coref",)}, r"data\.skills names coref"),  # generated: single and multi
        ({"skills": ("coref",), "subsets": (SubsetSettings(name="mine"),)}, "mine has none"),
    ],
)
def test_what_means_nothing_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe_of(**data)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 500), min_size=1),
    st.sampled_from(["none", "sqrt"]),
    st.integers(1, 60),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_rows_are_seen_as_evenly_as_can_be(sizes: Any, balance: Any, cap: Any, repeat: Any, seed: Any) -> None:
    data = DataSettings(subsets=(SubsetSettings(name="a", cap=cap, repeat=repeat),), sampling=balance)
    epoch = epoch_of(whole(sizes), data, seed=seed)
    lengths = {name: min(rows, cap) * repeat if name == "a" else rows for name, rows in sizes.items()}
    roots = sum(rows**0.5 for rows in lengths.values())
    for name, rows in sizes.items():
        visits = epoch[name]
        share = min(1.1 * lengths[name] ** 0.5 / roots, 1.0) if balance == "sqrt" and roots else 0.0
        expected = sum(lengths.values()) * share if balance == "sqrt" else lengths[name]
        assert expected - 1 - 1e-6 <= len(visits) <= expected + 1e-6
        counts = np.bincount(visits, minlength=rows)
        pool = min(rows, cap) if name == "a" else rows
        assert len(counts) == rows
        assert (counts > 0).sum() <= pool
        if len(visits):
            seen = counts[counts > 0]
            assert len(visits) < pool or seen.min() == len(visits) // pool
            assert seen.max() - len(visits) // pool in (0, 1)
    again = epoch_of(whole(sizes), data, seed=seed)
    assert all((epoch[name] == again[name]).all() for name in sizes)


def test_only_a_draw_depends_on_the_seed() -> None:
    rows = whole({"a": 1000, "b": 10})
    plain, balanced = DataSettings(), DataSettings(sampling="sqrt")
    assert all((epoch_of(rows, plain, seed=0)[name] == epoch_of(rows, plain, seed=1)[name]).all() for name in rows)
    assert (epoch_of(rows, balanced, seed=0)["a"] != epoch_of(rows, balanced, seed=1)["a"]).any()


def test_a_single_subset_is_not_seen_more_often_than_it_has_rows() -> None:
    """1.1 times its share would be 11 of 10 rows."""
    assert samples_per_epoch({"a": 10}, "sqrt") == {"a": 10}
    assert samples_per_epoch({"a": 10, "b": 0}, "sqrt") == {"a": 10, "b": 0}
    assert samples_per_epoch({"a": 100, "b": 100}, "sqrt") == {"a": 110, "b": 110}


def test_subsets_of_one_size_draw_different_rows() -> None:
    subsets = tuple(SubsetSettings(name=name, cap=50, order="drawn") for name in "ab")
    epoch = epoch_of(whole({"a": 1000, "b": 1000}), DataSettings(subsets=subsets), seed=0)
    assert len(epoch["a"]) == len(epoch["b"]) == 50
    assert (epoch["a"] != epoch["b"]).any()


def capped_epoch(source: SourceRows, cap: int, order: Order, seed: int = 0) -> list[int]:
    data = DataSettings(subsets=(SubsetSettings(name="a", cap=cap, order=order),))
    return [int(row) for row in epoch_of({"a": source}, data, seed=seed)["a"]]


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        (2, [1, 0]),
        (17, SHUFFLED_17),
        (1_000, [978, 933, 859, 916, 127, 608, 856, 260]),
        (150_918, [94670, 24846, 20956, 5703, 128495, 141184, 113955, 129825]),  # coinstruct
    ],
)
@pytest.mark.parametrize("seed", [0, 42])
def test_a_shuffled_cap_keeps_the_rows_that_datasets_shuffles_to_the_front(
    rows: int, first: list[int], seed: int
) -> None:
    """The rows are those of `Dataset.from_dict(...).shuffle(seed=42)[:8]`, run with datasets 3.6.0."""
    for cap in range(1, len(first) + 1):
        assert capped_epoch(SourceRows.all_of(rows), cap, "shuffled", seed) == sorted(first[:cap])


def test_dropped_rows_leave_a_gap_in_the_order_of_the_source() -> None:
    """The permutation is of all rows at the source. The next row takes the place of one that is not kept."""
    kept = np.array([0, 3, 6, 7, 9, 10, 11, 12], np.int64)  # of 17; 16 of the first three is missing
    source = SourceRows(numbers=kept, total=17)
    assert [int(kept[row]) for row in capped_epoch(source, 3, "shuffled")] == [6, 11, 12]
    assert [int(kept[row]) for row in capped_epoch(source, 3, "source")] == [0, 3, 6]


@pytest.mark.parametrize(
    ("order", "left_out"),
    [("source", {15, 16}), ("shuffled", set(SHUFFLED_17[-2:]))],
)
def test_a_partial_pass_takes_the_first_rows_in_the_order(order: Order, left_out: set[int]) -> None:
    """As DatasetCollection does, which counts on from the first row modulo the number of rows."""
    data = DataSettings(subsets=(SubsetSettings(name="a", order=order),), sampling="sqrt")
    visits = epoch_of(whole({"a": 17, "b": 1}), data, seed=0)["a"].tolist()
    assert visits == [row for row in range(17) if row not in left_out]


def test_terms_that_forbid_a_use_are_said() -> None:
    said = "\n".join(warnings(["nlvr2", "iconqa", "dvqa", "mine"]))
    assert "forbid commercial use: nlvr2 (images under their owners' copyright), iconqa (CC-BY-NC-SA-4.0)" in said
    assert "forbid passing them on: nlvr2" in said
    assert "no licence is known for: dvqa" in said
    assert "mine" not in said
    assert warnings(["dreamsim"]) == []


def test_estimates_are_those_of_the_table_and_unknown_where_it_is() -> None:
    recipe = recipe_of(subsets=(SubsetSettings(name="nlvr2", repeat=2), SubsetSettings(name="mine")))
    sizes = {
        "nlvr2": SubsetSize(rows=10, known="at the source"),
        "mine": SubsetSize(rows=5, known="prepared", images=3.0),
    }
    plan = plan_epoch(recipe, sizes, image_tokens=100)
    nlvr2, mine = plan.lines
    assert (nlvr2.samples, nlvr2.drawn, nlvr2.images, nlvr2.text_tokens) == (20, 10, 40, 2100)
    assert nlvr2.tokens == 2100 + 40 * 100
    assert (mine.images, mine.text_tokens, mine.tokens) == (15, None, None)
    assert plan.total.images == 55
    assert plan.total.tokens is None


def test_an_estimate_has_a_line_for_each_subset_and_skill_and_a_total() -> None:
    subsets = (
        SubsetSettings(name="nlvr2", cap=6, max_images=3),
        SubsetSettings(name="iconqa", max_images=3),
        SubsetSettings(name="mine", repeat=2),
        SubsetSettings(name="kept", held_out=True),
    )
    training = TrainingSettings(global_batch_size=4, epochs=3)
    recipe = Recipe(name="test", data=DataSettings(subsets=subsets, holdout=7), training=training)
    sizes = {
        "nlvr2": SubsetSize(rows=10, known="at the source"),
        "iconqa": SubsetSize(rows=20, known="prepared", images=2.0),
        "mine": SubsetSize(rows=5, known="to be generated"),
        "kept": SubsetSize(rows=100, known="prepared"),
    }
    plan = plan_epoch(written_out(recipe), sizes, image_tokens=100)
    shown = [
        (line.name, line.skill, line.rows, line.drawn, line.samples, line.images, line.text_tokens, line.tokens)
        for line in (*plan.lines, *plan.skills, plan.total)
    ]
    assert shown == [  # a fifth of 35 rows is held out
        ("nlvr2", "reason", 10, 6, 6, 12, 6 * 105, 6 * 105 + 1200),
        ("iconqa", "reason", 20, 16, 16, 32, 16 * 71, 16 * 71 + 3200),
        ("mine", "", 5, 4, 8, None, None, None),
        ("reason", "reason", 30, 22, 22, 44, 1766, 1766 + 4400),
        ("", "", 5, 4, 8, None, None, None),
        ("all", "all", 35, 26, 30, None, None, None),
    ]
    assert [line.note for line in plan.lines] == [
        "rows at the source; cap 6; rows of more than 3 images will be dropped",
        "rows prepared",
        "rows to be generated; seen 2 times",
    ]
    assert (plan.batch_size, plan.epochs, plan.steps) == (4, 3, 23)


def test_no_more_rows_are_held_out_than_there_are() -> None:
    recipe = recipe_of(subsets=(SubsetSettings(name="mine"),), holdout=10)
    for rows in (0, 1, 10):
        plan = plan_epoch(recipe, {"mine": SubsetSize(rows=rows, known="prepared")}, image_tokens=1)
        assert (plan.total.rows, plan.total.samples) == (rows, 0)
