import pytest

from components.training.engine.deepspeed_config import as_config, as_text, deepspeed_options
from mantis.config.training_settings import TrainingSettings

LARGE = 8_000_000_000


@pytest.mark.parametrize("parameters", [1_000_000, LARGE])
@pytest.mark.parametrize("stage", [2, 3])
def test_every_value_has_a_reason(stage: int, parameters: int) -> None:
    options = deepspeed_options(
        TrainingSettings(zero_stage=stage, nodes=2, cpu_offload=True), parameters=parameters, cuda=True
    )
    assert all(option.why for option in options)
    assert len({option.key for option in options}) == len(options)
    assert len(as_text(options).splitlines()) == len(options)


def test_the_mapping_is_nested() -> None:
    config = as_config(deepspeed_options(TrainingSettings(), parameters=LARGE, cuda=True))
    assert config["zero_optimization"] == {"stage": 3, "contiguous_gradients": True, "overlap_comm": True}
    assert config["bf16"] == {"enabled": True}


def test_nodes_hold_the_weights_whole_each() -> None:
    several = TrainingSettings(nodes=2, gpus_per_node=8)
    config = as_config(deepspeed_options(several, parameters=LARGE, cuda=True))
    assert config["zero_optimization"]["zero_hpz_partition_size"] == 8
    for other in (TrainingSettings(nodes=1), TrainingSettings(nodes=2, zero_stage=2)):
        found = as_config(deepspeed_options(other, parameters=LARGE, cuda=True))
        assert "zero_hpz_partition_size" not in found["zero_optimization"]


def test_offload_is_asked_for() -> None:
    config = as_config(deepspeed_options(TrainingSettings(cpu_offload=True), parameters=LARGE, cuda=True))
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
