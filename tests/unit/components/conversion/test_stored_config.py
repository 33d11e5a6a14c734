"""The config of a converted model names the precision of the stored weights."""

from components.conversion.convert_checkpoint import _with_dtype


def test_the_configs_of_all_parts_name_the_stored_precision() -> None:
    """Configs of published weights may name the precision of each part."""
    vision = {"dtype": "float16", "hidden_size": 8}
    text = {"dtype": "float32", "rope_parameters": {"rope_theta": 1e4}, "eos_token_id": [2, 5]}
    config = {"dtype": "float32", "vision_config": vision, "text_config": text, "tie_word_embeddings": False}
    assert _with_dtype(config, "bfloat16") == {
        **config,
        "dtype": "bfloat16",
        "vision_config": {**vision, "dtype": "bfloat16"},
        "text_config": {**text, "dtype": "bfloat16"},
    }
