import io
from pathlib import Path

import numpy as np
from PIL import Image

from components.evaluation.benchmarks.benchmark_catalog import load_benchmark
from components.evaluation.controls import shown
from components.evaluation.readers.benchmark_reader import read_benchmark


def test_actual_is_the_sample_itself(eval_source: Path) -> None:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples
    assert [shown(samples, "actual", seed=0)[place] for place in range(60)] == [sample.pictures for sample in samples]


def test_blind_shows_grey_of_the_same_size(eval_source: Path) -> None:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples
    view = shown(samples, "blind", seed=0)
    assert 0 not in view  # it has no pictures: nothing can be taken away
    for place, pictures in view.items():
        assert [picture.size for picture in pictures] == [picture.size for picture in samples[place].pictures]
        for picture in pictures:
            assert np.ptp(np.asarray(Image.open(io.BytesIO(picture.load())))) == 0


def test_shuffled_gives_everybody_another_samples_pictures(eval_source: Path) -> None:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples
    view = shown(samples, "shuffled", seed=0)
    owners = {sample.pictures: sample for sample in samples if sample.pictures}
    assert sorted(view) == list(range(1, 60))
    givers = [owners[pictures] for pictures in view.values()]
    assert len({giver.id for giver in givers}) == 59  # a permutation
    for place, giver in zip(view, givers, strict=True):
        assert giver.id != samples[place].id
        assert giver.skill == samples[place].skill
        assert len(giver.pictures) == len(samples[place].pictures)
    assert shown(samples, "shuffled", seed=0) == view != shown(samples, "shuffled", seed=1)


def test_a_sample_without_a_partner_is_left_out(eval_source: Path) -> None:
    samples = read_benchmark(eval_source / "demo-multi", load_benchmark("demo-multi"), spool=eval_source).samples
    assert shown(samples[:4], "shuffled", seed=0) == {}
