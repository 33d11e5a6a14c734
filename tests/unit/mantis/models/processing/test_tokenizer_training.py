from pathlib import Path

from transformers import AutoTokenizer

from mantis.models.processing.tokenizer_training import train_tokenizer

TEXTS = ["What colour is in image 1?\nred", "How many images show a square?\n4", "Zwölf Boxkämpfer 🥊"] * 20
SPECIAL = ["<image>", "<|eot_id|>"]


def test_same_texts_give_same_tokenizer() -> None:
    first, second = (train_tokenizer(iter(TEXTS), vocabulary=400, special_tokens=SPECIAL) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_any_text_survives_and_vocabulary_is_bounded() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=300, special_tokens=SPECIAL)
    assert len(tokenizer) <= 300
    for text in ("red", " 日本語\t\x00 \n\n x", "Wie viele? 🥊🥊", "  two  spaces "):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_frequent_words_are_one_token_and_special_tokens_stay_whole() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=2000, special_tokens=SPECIAL)
    assert tokenizer.tokenize(" image 1<image> show<|eot_id|>") == ["Ġimage", "Ġ1", "<image>", "Ġshow", "<|eot_id|>"]
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_prompt_is_a_prefix_of_the_training_text() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=2000, special_tokens=SPECIAL)
    for prompt in ("image 1?\n", "image 1\n\n"):
        whole = tokenizer.encode(prompt + "red", add_special_tokens=False)
        assert whole == tokenizer.encode(prompt, add_special_tokens=False) + tokenizer.encode(
            "red", add_special_tokens=False
        )


def test_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=400, special_tokens=SPECIAL)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "What colour is in <image> 7?<|eot_id|>"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.pad_token, loaded.bos_token, loaded.eos_token) == ("<pad>", "<|begin_of_text|>", "<|end_of_text|>")
