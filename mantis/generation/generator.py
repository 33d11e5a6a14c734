"""Generates greedy responses in left-padded batches. A response is the same as in a batch of one."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedTokenizerFast

from mantis.config.evaluation_settings import EvaluationSettings
from mantis.config.model_settings import ModelSettings
from mantis.errors import EvaluationError, InputError
from mantis.generation.allowed_answers import only_allowed
from mantis.generation.answerer import PreparedQuestion, Question, batches_by_cost
from mantis.generation.decoding import END_OF_TEXT, Decoding
from mantis.generation.generation_batches import Cost
from mantis.generation.live_rows import LiveRow, Reply, RowFollower, context_of, response_text
from mantis.generation.sample_images import Picture
from mantis.generation.workers import devices
from mantis.models.conversation import Conversation
from mantis.models.family import Family, Processor
from mantis.models.packed_batch import Pixels, joined
from mantis.models.processing.chat_templates import load_chat_template
from mantis.models.registry import family

AHEAD = 2  # batches whose images are decoded while the model generates


@dataclass(frozen=True, kw_only=True)
class Encoded(PreparedQuestion):
    """A question as tokens, with its cost."""

    tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A batch of B questions of at most T tokens. It shows N images, U of them different."""

    questions: Sequence[Question]
    input_ids: Tensor  # [B, T] int64, padded on the left
    attention_mask: Tensor  # [B, T] int64
    pixels: Pixels  # of the U different images
    shown: list[int]  # N, in the order of the image marks: the image's index in `pixels`


@dataclass(frozen=True, kw_only=True)
class PromptEncoder:
    """Encodes questions as tokens. It needs no weights."""

    family: Family
    processor: Processor

    def encode(self, question: Question) -> Encoded:
        """Encode the conversation, with expanded image tokens, and compute its cost.

        Raises:
            InputError: the marks and images of the conversation differ in number, or the model has no place for its
                system text.
        """
        prompt = self.processor.settings.prompt
        if question.system and not load_chat_template(prompt).takes_system:
            raise InputError(
                f"The chat template {prompt!r} of this model has no place for a system text.",
                remedy="Leave the system text out, or write it into the question.",
            )
        sizes = tuple(picture.size for picture in question.pictures)
        conversation = Conversation(id=question.id, system=question.system, turns=question.turns, sizes=sizes)
        tokens = self.processor.encode_prompt(conversation)
        patches = sum(self.processor.sample_patches(sizes))
        first = question.pictures[0].sha256 if question.pictures else ""
        return Encoded(question=question, tokens=tokens, cost=Cost(tokens=len(tokens), patches=patches, picture=first))

    def inputs(self, batch: Sequence[Encoded]) -> Inputs:
        """Pad the batch on the left, and decode every different image once."""
        width, pad = max(len(each.tokens) for each in batch), self.processor.tokenizer.pad_token_id
        missing = [width - len(each.tokens) for each in batch]
        pixels, shown = self._pixels([each.question.pictures for each in batch])
        return Inputs(
            questions=[each.question for each in batch],
            input_ids=torch.tensor([[pad] * n + each.tokens for n, each in zip(missing, batch, strict=True)]),
            attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in missing]),
            pixels=pixels,
            shown=shown,
        )

    def _pixels(self, samples: Sequence[Sequence[Picture]]) -> tuple[Pixels, list[int]]:
        """The different images of a batch, and the place of each shown image among them.

        Where the images of a question depend on each other, they are different for each set of images. Then an image
        that a question shows twice is decoded twice: the number of images may decide their size.
        """
        if self.processor.images_depend:
            names = [tuple(picture.sha256 for picture in sample) for sample in samples]
            sets = dict(zip(names, samples, strict=True))
            parts = [self.processor.preprocess([picture.load() for picture in sample]) for sample in sets.values()]
            starts = dict(zip(sets, accumulate(map(len, sets), initial=0), strict=False))
            return joined(parts), [starts[each] + at for each in names for at in range(len(each))]
        different = {picture.sha256: picture for sample in samples for picture in sample}
        order = {sha256: place for place, sha256 in enumerate(different)}
        pixels = self.processor.preprocess([picture.load() for picture in different.values()])
        return pixels, [order[picture.sha256] for sample in samples for picture in sample]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A loaded model that generates responses."""

    model: Any  # a model of transformers, which publishes no types
    encoder: PromptEncoder
    decoding: Decoding

    def answer(self, batches: Iterable[Sequence[Encoded]]) -> Iterator[list[str]]:
        """Yield the responses of each batch, in order. Threads decode the images of the next batches meanwhile."""
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="decode") as pool:
            waiting: deque[Future[Inputs]] = deque()
            for batch in batches:
                waiting.append(pool.submit(self.encoder.inputs, batch))
                if len(waiting) > AHEAD:
                    yield self._generate(waiting.popleft().result())
            while waiting:
                yield self._generate(waiting.popleft().result())

    @property
    def context(self) -> int:
        """The number of tokens that the model was made for: a prompt and its response."""
        return context_of(self.model)

    def reply(self, batch: Sequence[Encoded], rows: Sequence[LiveRow]) -> list[Reply]:
        """Answer one batch while its rows follow: the same text as `answer` gives, up to each row's own limits."""
        stops, decode = self._stops(), response_text(self.encoder.processor.tokenizer)
        self._generate(self.encoder.inputs(batch), rows)
        return [row.reply(len(each.tokens), stops, decode) for each, row in zip(batch, rows, strict=True)]

    @torch.inference_mode()
    def _generate(self, inputs: Inputs, rows: Sequence[LiveRow] = ()) -> list[str]:
        """Generate the responses of a batch. `rows` may follow them; then their limits hold, not the profile's."""
        processor, device = self.encoder.processor, self.model.device
        end, stops = processor.end_of_answer, self._stops()
        width = inputs.input_ids.shape[1]
        longest = max((row.max_new_tokens for row in rows), default=self.decoding.max_new_tokens)
        output: Tensor = self.model.generate(
            input_ids=inputs.input_ids.to(device),
            attention_mask=inputs.attention_mask.to(device),
            **self.encoder.family.generation_inputs(self.model, inputs.input_ids, inputs.pixels, inputs.shown),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=longest,
                eos_token_id=stops,
                pad_token_id=processor.tokenizer.pad_token_id,
            ),
            stopping_criteria=[RowFollower(rows, stops, processor.tokenizer)] if rows else None,
            prefix_allowed_tokens_fn=only_allowed(processor.tokenizer, inputs.questions, width, end),
        )
        return [self._text(tokens, stops) for tokens in output[:, width:].tolist()]

    def _stops(self) -> list[int]:
        """The tokens that end a response: the end of an answer, and those of the profile.

        Raises:
            EvaluationError: the tokenizer does not have a token of the profile.
        """
        tokenizer = self.encoder.processor.tokenizer
        known = tokenizer.get_vocab()
        stops = [self.encoder.processor.end_of_answer]
        for stop in self.decoding.stop:
            token = tokenizer.eos_token_id if stop == END_OF_TEXT else known.get(stop)
            if token is not None:
                stops.append(token)
            elif stop != END_OF_TEXT:  # some tokenizers have no end of a text
                raise EvaluationError(
                    f"stop = {stop!r} of the profile is no token of this model.",
                    remedy=f"Name a token of its vocabulary, or {END_OF_TEXT}.",
                )
        return list(dict.fromkeys(stops))

    def _text(self, tokens: list[int], stops: list[int]) -> str:
        tokens = list(takewhile(lambda token: token not in stops, tokens))
        return response_text(self.encoder.processor.tokenizer)(tokens).strip()


@dataclass(frozen=True, kw_only=True)
class OpenFamilyModel:
    """A model folder of one of our families, with its prompt encoder."""

    folder: Path
    settings: ModelSettings
    decoding: Decoding
    encoder: PromptEncoder

    def prepare(self, questions: Sequence[Question]) -> list[Encoded]:
        """Encode every question as tokens."""
        return [self.encoder.encode(question) for question in questions]

    def plan(self, prepared: Sequence[Encoded], settings: EvaluationSettings) -> list[list[Encoded]]:
        """Group questions of similar length."""
        return batches_by_cost(prepared, settings, self.decoding)

    def devices(self, processes: int) -> list[str]:
        """One per GPU, else the CPU."""
        return devices(processes)

    def load(self, device: str) -> Generator:
        """Load the weights. It raises the errors of `load_generator`."""
        return load_generator(self.folder, self.settings, self.decoding, device)


def open_family_model(folder: Path, settings: ModelSettings, decoding: Decoding) -> OpenFamilyModel:
    """Load the tokenizer of a model folder. It raises the errors of `load_encoder`."""
    return OpenFamilyModel(folder=folder, settings=settings, decoding=decoding, encoder=load_encoder(folder, settings))


def load_encoder(folder: Path, settings: ModelSettings) -> PromptEncoder:
    """Load the tokenizer of a Hugging Face folder. The family of `settings` writes the prompts.

    Raises:
        EvaluationError: the folder holds no tokenizer.
    """
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise _no_model(folder, error) from None
    kind = family(settings.family)
    return PromptEncoder(family=kind, processor=kind.processor(tokenizer, settings))


def load_generator(folder: Path, settings: ModelSettings, decoding: Decoding, device: str = "cpu") -> Generator:
    """Load the model and tokenizer of a Hugging Face folder onto `device`. A CPU computes in fp32.

    Raises:
        EvaluationError: the folder holds no model that transformers can load.
    """
    transformers.utils.logging.disable_progress_bar()
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _no_model(folder, error) from None
    encoder = load_encoder(folder, settings)
    encoder.family.for_generation(model)
    return Generator(model=model.to(device).eval(), encoder=encoder, decoding=decoding)


def _no_model(folder: Path, error: Exception) -> EvaluationError:
    return EvaluationError(
        f"{folder} holds no model that can be loaded: {str(error).splitlines()[0]}",
        remedy="Delete the model's folder in the store, and run the same command again. It converts the model again.",
    )
