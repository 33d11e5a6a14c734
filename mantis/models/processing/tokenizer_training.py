"""A tokenizer trained from nothing, for models that are built from nothing."""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BEGIN, END = "<pad>", "<|begin_of_text|>", "<|end_of_text|>"

# How text is cut before merging: GPT-2's rule, but a run of newlines is a piece of its own whatever follows it, as in
# LLaMA-3, so that a prompt, which ends there, has the same tokens as the training text, which goes on.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, special_tokens: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts` with at most `vocabulary` tokens; the same texts give the same tokenizer.

    Any text can be encoded: all 256 bytes are tokens. `special_tokens` are never split or merged; `<pad>`,
    `<|begin_of_text|>` and `<|end_of_text|>` are added where they are not among them.
    """
    specials = [PAD, *(token for token in (BEGIN, END) if token not in special_tokens), *special_tokens]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=special_tokens,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
