"""The prompts that official code makes of made-up rows: what each profile has to ask.

Each function runs the code of one repository (official_code.py). Nothing of that code is in the golden file: it holds
the rows, and the texts that a model of each family would get.
"""

import ast
import csv
import json
import re
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from PIL import Image

from tests.golden.official_code import OfficialRepositories, module, module_of, stand_ins

FILE = Path(__file__).with_name("official_prompts.json")
COMMAND = "python -m tests.golden.write_official_prompts FOLDER"
MARK = "<image>"
MANTIS, LMMS, LLAVA = "TIGER-AI-Lab/Mantis", "EvolvingLMMs-Lab/lmms-eval", "haotian-liu/LLaVA"

Row = dict[str, Any]
Record = dict[str, Any]
Messages = list[dict[str, Any]]

LETTERED = ["(A) a cat", "B. a dog", "(C) neither, as in the U.S.A."]
PLAIN = ["a cat", "a dog", "C. neither"]
# Rows in the published columns. The number of an image stands for its bytes.
ROWS: dict[str, list[Row]] = {
    "mantis-eval": [
        {"id": "1", "question_type": "multi-choice", "question": "<image> <image> Which one is fast?",
         "options": LETTERED, "answer": "B", "images": [1, 2]},
        {"id": "2", "question_type": "multi-choice", "question": "Is <image> in <image> or elsewhere?",
         "options": PLAIN, "answer": "B", "images": [1, 2, 3]},
        {"id": "3", "question_type": "short-answer", "question": "How many people are in <image> and <image> together?",
         "options": [], "answer": "3", "images": [1, 2]},
        {"id": "4", "question_type": "short-answer", "question": "What colour?", "options": [], "answer": "red",
         "images": [1, 2]},
    ],
    "nlvr2": [
        {"id": "1", "question_type": "multi-choice", "question": "<image> <image> Both are red.",
         "options": ["(A) True", "(B) False"], "answer": "B", "images": [1, 2]},
        {"id": "2", "question_type": "multi-choice", "question": "Both are red.", "options": ["True", "False"],
         "answer": "B", "images": [1, 2]},
    ],
    "q-bench2": [
        {"id": 1, "image1": 1, "image2": 2, "question": "Which one is sharper?", "option0": "The first",
         "option1": "A. The second", "option2": "N/A", "option3": "N/A", "question_concern": 0, "correct_choice": "A"},
    ],
    "blink": [
        {"idx": f"val_{task}_1", "sub_task": task, "image_1": 1, "image_2": 2, "image_3": None, "image_4": None,
         "choices": ["yes", "no", "maybe"][:options], "answer": "(B)", "question": "Same?",
         "prompt": "Same?\nSelect from the following choices.\n(A) yes\n(B) no"}
        for task, options in (("Counting", 2), ("Jigsaw", 3), ("Art_Style", 2), ("Forensic_Detection", 3))
    ],
    "mvbench": [
        {"id": "action_count-1", "task": "action_count", "question": "How often?", "candidates": ["2", "A. 3", "4 "],
         "answer": "2", "frames": [1, 2, 3, 4, 5, 6, 7, 8]},
    ],
    "mementos": [
        {"id": "d1", "subset": "dl", "question": "Describe.", "images": list(range(1, count + 1)), "answer": "A dog."}
        for count in (4, 15)
    ],
    "muirbench": [
        {"idx": "1", "task": "Counting", "question": "<image>Which one<image>", "options": ["a", "B. b", "<image>"],
         "answer": "B", "image_list": [1, 2, 3], "image_relation": "", "image_type": ""},
    ],
    "mirb": [
        {"question_id": 1, "subset": subset, "questions": "Which one?", "answers": "red", "image_list": [1, 2]}
        for subset in ("analogy", "codeu", "arxiv", "count", "3d_scene")
    ],
    "mmmu": [
        {"id": "validation_Art_1", "question": "<image 2> or <image 1>? Which?", "options": str(PLAIN), "answer": "B",
         "question_type": "multiple-choice", "image_1": 1, "image_2": 2},
        {"id": "validation_Music_2", "question": "What? <image 1>", "options": "[]", "answer": "red",
         "question_type": "open", "image_1": 1, "image_2": None},
    ],
    "mathvista": [
        {"pid": str(place), "question": "How long?", "unit": unit, "choices": choices, "answer": answer,
         "question_type": kind, "answer_type": form, "precision": precision, "decoded_image": 1,
         "query": "Hint: Please answer.\nQuestion: How long?"}
        for place, (unit, choices, answer, kind, form, precision) in enumerate((
            (None, ["1", "2"], "2", "multi_choice", "text", None), ("m", ["1", "2"], "2", "multi_choice", "text", None),
            (None, None, "3", "free_form", "integer", None), ("m", None, "1.2", "free_form", "float", 1.0),
            (None, None, "1.25", "free_form", "float", 2.0), (None, None, "[1, 2]", "free_form", "list", None)))
    ],
    "mmbench": [
        {"index": place, "question": "Which?", "hint": hint, "answer": "B", "category": "ocr", "image": 1, "A": "a cat",
         "B": "B. a dog", "C": third, "D": "nan", "L2-category": "", "split": "dev", "source": ""}
        for place, (hint, third) in enumerate((("nan", "neither"), ("Mind the light.", "nan")))
    ],
    "textvqa": [
        {"question_id": 1, "question": "what does NASA say?", "answers": ["x"] * 10, "image": 1, "ocr_tokens": ["a"]}
    ],
    "ok-vqa": [{"question_id": 1, "question": "What is it?", "answers": ["x"] * 10, "image": 1}],
    "vqav2": [
        {"question_id": 1, "question": "What is it?", "answers": [{"answer": "x"}] * 10, "answer_type": "other",
         "image": 1}
    ],
    "scienceqa-img": [
        {"subject": "natural science", "question": "Which?", "hint": hint, "choices": PLAIN, "answer": 1, "image": 1}
        for hint in ("", "Light is bright.")
    ],
    **{
        f"llava-interleave-{domain}": [
            {"sample_id": str(place), "sub_task": task, "question": "<image><image>Same? A. yes B. no",
             "question_type": kind, "answer": "A", "image_0": 1, "image_1": 2}
            for place, kind in enumerate(("multi-choice", "open-ended"))
        ]
        for domain, task in (("in-domain", "RAVEN"), ("out-of-domain", "Mantis"))
    },
    "mmmu-pro": [
        {"id": "test_Art_1", "subject": "Art", "question": "<image 2> or <image 1>? Which?",
         "options": str([*PLAIN, "<image 2>"]), "answer": "B", "image_1": 1, "image_2": 2},
    ],
    "mmmu-pro-vision": [{"id": "test_Art_1", "subject": "Art", "options": str(PLAIN), "answer": "B", "image": 1}],
    "video-mme": [
        {"question_id": "001-1", "duration": "short", "videoID": "a", "question": "What happens?", "answer": "A",
         "options": ["A. A door opens.", "B. It rains.", "C. A", "D. B"], "frames": [1, 2, 3, 4, 5, 6, 7, 8]},
    ],
}  # fmt: skip


def golden_records(repositories: OfficialRepositories) -> list[Record]:
    """Run the official code on every row. A record is {benchmark, profile, family, row, prompt, max_new_tokens}."""
    wrappers = _wrappers(repositories)
    records: list[Record] = []
    with redirect_stdout(StringIO()), tempfile.TemporaryDirectory(prefix="mantis-official-") as folder:
        for benchmark, number, messages in _asked_by_mantis(repositories, Path(folder)):
            records += _official(benchmark, ROWS[benchmark][number], wrappers(messages))
        for benchmark, number, prompt, limit in _asked_by_others(repositories, Path(folder)):
            records.append(_record(benchmark, "official", "", ROWS[benchmark][number], prompt, limit))
        records += _of_lmms_eval(repositories)
    return records


def golden_text(repositories: OfficialRepositories) -> str:
    """The text of official_prompts.json."""
    return json.dumps(golden_records(repositories), indent=1, ensure_ascii=False) + "\n"


def _record(benchmark: str, profile: str, family: str, row: Row, prompt: str, limit: int | None) -> Record:
    told = {"benchmark": benchmark, "profile": profile, "family": family}
    return told | {"row": row, "prompt": prompt, "max_new_tokens": limit}


def _official(benchmark: str, row: Row, asked: Mapping[str, tuple[str, int]]) -> list[Record]:
    return [_record(benchmark, "official", family, row, *given) for family, given in asked.items()]


# Mantis's own run


def _wrappers(repositories: OfficialRepositories) -> Any:
    """A function that gives messages to each wrapper: {family: (the user's turn, the limit of new tokens)}."""
    root = repositories.files(MANTIS, "mantis/mllm_tools", "mantis/models/conversation.py")
    seen: dict[str, Any] = {}

    def chat(text: str, images: list[Any], *_: Any, **settings: Any) -> tuple[str, list[Any]]:
        seen.update(text=text, images=len(images), limit=settings["max_new_tokens"])
        return "", []

    class Turn:
        roles = ("User", "Assistant")

        def copy(self) -> "Turn":
            return self

        def append_message(self, role: str, text: str) -> None:
            seen.update(text=text) if role == "User" else None

        def get_prompt(self) -> str:
            return ""

    utilities = module("mantis.mllm_tools.mllm_utils", load_images=lambda links: links)
    mllava = module("mantis.models.mllava", chat_mllava=chat)
    mfuyu = module("mantis.models.mfuyu", chat_mfuyu=chat)
    conversation = module("mantis.models.conversation", conv_openflamingo=Turn())
    with stand_ins(
        "transformers",
        "torch",
        "huggingface_hub",
        "mantis.models.openflamingo",
        mantis__mllm_tools__mllm_utils=utilities,
        mantis__models__mllava=mllava,
        mantis__models__mfuyu=mfuyu,
        mantis__models__conversation=conversation,
    ):
        loaded = {name: module_of(root / f"mantis/mllm_tools/{name}_eval.py") for name in
                  ("mllava", "idefics2", "mfuyu", "openflamingo")}  # fmt: skip

    def of_chat(kind: Any, messages: Messages) -> tuple[str, int]:
        wrapper = object.__new__(kind)
        wrapper.model, wrapper.processor = mock.MagicMock(), mock.MagicMock()
        wrapper(messages)
        missing = seen["images"] - seen["text"].count(MARK)  # MFuyuProcessor writes them in front
        return MARK * missing + seen["text"], seen["limit"]

    def idefics2(messages: Messages) -> tuple[str, int]:
        wrapper = object.__new__(loaded["idefics2"].Idefics2)
        wrapper.model, wrapper.processor = mock.MagicMock(), mock.MagicMock()
        wrapper.processor.return_value = {"input_ids": mock.MagicMock()}
        wrapper(messages)
        (turn,) = wrapper.processor.apply_chat_template.call_args.args[0]
        text = "".join(MARK if part["type"] == "image" else part["text"] for part in turn["content"])
        return text, wrapper.model.generate.call_args.kwargs["max_new_tokens"]

    def openflamingo(messages: Messages) -> tuple[str, int]:
        wrapper = object.__new__(loaded["openflamingo"].OpenFlamingo)
        for name in ("model", "processor", "tokenizer", "device"):
            setattr(wrapper, name, mock.MagicMock())
        wrapper.input_type, wrapper.image_token = "chat", MARK
        wrapper.processor.return_value = dict.fromkeys(("vision_x", "input_ids", "attention_mask"), mock.MagicMock())
        wrapper(messages)
        return seen["text"], wrapper.model.generate.call_args.kwargs["max_new_tokens"]

    def asked(messages: Messages) -> dict[str, tuple[str, int]]:
        mllava_ = of_chat(loaded["mllava"].MLlava, messages)
        fuyu = of_chat(loaded["mfuyu"].MFuyu, messages)
        return {"llava-clip": mllava_, "llava-siglip": mllava_, "idefics2": idefics2(messages), "fuyu": fuyu,
                "flamingo": openflamingo(messages)}  # fmt: skip

    return asked


def _asked_by_mantis(repositories: OfficialRepositories, folder: Path) -> Iterator[tuple[str, int, Messages]]:
    """(benchmark, number of the row, messages) of every row that Mantis's own code asked."""
    root = repositories.files(MANTIS, "mantis/benchmark", "data/qbench2/prepare.py")
    for number in range(1, 16):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    for benchmark in ("mantis-eval", "nlvr2"):
        rows = [
            {**row, "images": [f"{number}.png" for number in row["images"]], "category": "", "data_source": ""}
            for row in ROWS[benchmark]
        ]
        yield from ((benchmark, *found) for found in _of_eval(root, folder, rows, benchmark.replace("-", "_")))
    prepared = _prepared_qbench2(root, folder)
    yield from (("q-bench2", *found) for found in _of_eval(root, folder, prepared, "q-bench2-a1-pair-dev"))
    yield from _of_blink(repositories, folder)
    yield from _of_mvbench(root)
    yield from _of_mementos(root, folder)


class Recorder:
    """A model of MLLM_Models that keeps the messages it gets."""

    support_multi_image = True

    def __init__(self) -> None:
        self.asked: list[Messages] = []

    def __call__(self, messages: Messages) -> str:
        self.asked.append([dict(message) for message in messages])
        return "A"


def _of_eval(root: Path, folder: Path, rows: list[Row], name: str) -> Iterator[tuple[int, Messages]]:
    """What mantis/benchmark/eval.py asks."""
    file, recorder = folder / f"{name}.json", Recorder()
    file.write_text(json.dumps(rows))
    tools = module("mllm_tools", MLLM_Models=lambda _: lambda: recorder)
    with stand_ins("fire", "datasets", regex=re, mllm_tools=tools):  # `re` stands for regex
        official = module_of(root / "mantis/benchmark/eval.py")
        official.main(model_name="recorder", dataset_path=str(file), dataset_name=name, results_dir=str(folder))
    yield from enumerate(recorder.asked)


def _prepared_qbench2(root: Path, folder: Path) -> list[Row]:
    """The rows that data/qbench2/prepare.py makes of Q-Bench2's own form."""
    (folder / "data/all_single_images").mkdir(parents=True)
    lines = []
    for row in ROWS["q-bench2"]:
        for number in (row["image1"], row["image2"]):
            Image.new("RGB", (8, 8)).save(folder / f"data/all_single_images/{number}.png")
        candidates = [row[f"option{place}"] for place in range(4) if row[f"option{place}"] != "N/A"]
        path = f"llvisionqa_compare_dev\\{row['image1']}.png_cat_{row['image2']}.png.jpg"
        lines.append({"question": row["question"], "img_path": path, "candidates": candidates, "correct_choice": "A"})
    (folder / "data/q-bench2-a1-dev.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with stand_ins("fire"), chdir(folder):
        module_of(root / "data/qbench2/prepare.py").main(image_mode="pair", split="dev")
    rows: list[Row] = json.loads((folder / "data/q-bench2-a1-pair-dev.json").read_text())
    return [{**row, "images": [str(folder / "data" / path) for path in row["images"]]} for row in rows]


def _of_blink(repositories: OfficialRepositories, folder: Path) -> Iterator[tuple[str, int, Messages]]:
    """What the fork of BLINK asks: all images, then the text of load_prompt."""
    file = repositories.files("jdf-prog/BLINK_Benchmark", "eval/test_benchmark.py") / "eval/test_benchmark.py"
    with stand_ins("datasets", "multiple_choice", "query_model"):
        official = module_of(file)
    official.model_name = "recorder"
    official.need_disclaimer_tasks = _literal(file, "need_disclaimer_tasks")
    for number, row in enumerate(ROWS["blink"]):
        image = mock.MagicMock()
        cells = {key: (image if key.startswith("image_") and value else value) for key, value in row.items()}
        paths, text = official.load_prompt(row["sub_task"], cells, str(folder))
        yield "blink", number, _images_then_text(len(paths), text)


def _literal(file: Path, name: str) -> Any:
    """The value that a file assigns to `name`, also below `if __name__ == ...`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return ast.literal_eval(node.value)
    raise LookupError(name)


def _images_then_text(images: int, text: str) -> Messages:
    shown: Messages = [{"type": "image", "content": number} for number in range(images)]
    return [*shown, {"type": "text", "content": text}]


def _of_mvbench(root: Path) -> Iterator[tuple[str, int, Messages]]:
    """What eval_on_mvbench.py asks: 8 frames, then the text of qa_template."""
    data = module("torch.utils.data", Dataset=object)
    with stand_ins("torch", "torchvision", "decord", "numpy", torch__utils__data=data):
        official = module_of(root / "mantis/benchmark/mvbench_eval_utils.py")
    for number, row in enumerate(ROWS["mvbench"]):
        text, _ = official.MVBench_dataset.qa_template(None, row)
        yield "mvbench", number, _images_then_text(len(row["frames"]), text)


def _of_mementos(root: Path, folder: Path) -> Iterator[tuple[str, int, Messages]]:
    """What eval_on_mementos.py asks."""
    recorder = Recorder()
    split = [{**row, "id": str(number)} for number, row in enumerate(ROWS["mementos"])]
    datasets = module("datasets", load_dataset=lambda *_: {"single_image_dl": split})
    tools = module("mantis.mllm_tools", MLLM_Models=lambda _: lambda: recorder)
    with stand_ins("fire", "mementos_eval_utils", datasets=datasets, mantis__mllm_tools=tools):
        official = module_of(root / "mantis/benchmark/eval_on_mementos.py")
        official.main(model_name="recorder", results_dir=str(folder / "mementos"))
    yield from (("mementos", number, messages) for number, messages in enumerate(recorder.asked))


# The benchmarks' own code, and LLaVA's


def _asked_by_others(repositories: OfficialRepositories, folder: Path) -> Iterator[tuple[str, int, str, int | None]]:
    """(benchmark, number of the row, the user's turn, limit) of the benchmarks that Mantis's code does not ask."""
    yield from _of_muirbench(repositories)
    yield from _of_mirb(repositories)
    yield from _of_mmmu(repositories)
    yield from _of_mathvista(repositories)
    yield from _of_llava_short(repositories)
    yield from _of_llava_science(repositories, folder)
    yield from _of_llava_mmbench(repositories, folder)


def _of_muirbench(repositories: OfficialRepositories) -> Iterator[tuple[str, int, str, None]]:
    root = repositories.files("muirbench/MuirBench", "eval/utils/preprocess.py")
    official = module_of(root / "eval/utils/preprocess.py")
    for number, row in enumerate(ROWS["muirbench"]):
        yield "muirbench", number, official.create_prompt(row), None


def _of_mirb(repositories: OfficialRepositories) -> Iterator[tuple[str, int, str, int]]:
    root = repositories.files("ys-zong/MIRB", "utils", "inference.py")
    (root / "utils/__init__.py").write_text("")
    limit = _found(r"--max-new-tokens', default=(\d+)", root / "inference.py")
    with stand_ins("torch"):
        utilities = module_of(root / "utils/utils.py", "mirb.utils")
        utilities.load_image = lambda ids, _: (ids, ids)
        source = (root / "utils/model_inference.py").read_text().replace("from .utils import", "from mirb_utils import")
        (root / "model_inference.py").write_text(source)
        with stand_ins(mirb_utils=utilities):
            official = module_of(root / "model_inference.py")
    for number, row in enumerate(ROWS["mirb"]):
        processor, model = mock.MagicMock(), mock.MagicMock()
        query = {"images": row["image_list"], "questions": row["questions"]}
        official.ICL_I2T_inference(
            Namespace(CoT=False), "idefics2-8b", row["subset"], model, None, query, "", processor, limit
        )
        (turn,) = processor.apply_chat_template.call_args.args[0]
        text = "".join(MARK if part["type"] == "image" else part["text"] for part in turn["content"])
        yield "mirb", number, text, model.generate.call_args.kwargs["max_new_tokens"]


def _of_mmmu(repositories: OfficialRepositories) -> Iterator[tuple[str, int, str, int]]:
    """construct_prompt of MMMU. Images are put in the places that "<image 1>" names; see `differs` of mmmu.yaml."""
    root = repositories.files("MMMU-Benchmark/MMMU", "mmmu/utils", "mmmu/configs")
    with stand_ins("torch"):
        official = module_of(root / "mmmu/utils/data_utils.py")
    config = official.load_yaml(root / "mmmu/configs/llava1.5.yaml")
    config = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    limit = _found(r"max_new_tokens=(\d+)", root / "mmmu/utils/model_utils.py")
    for number, row in enumerate(ROWS["mmmu"]):
        prompt = official.construct_prompt(row, config)["final_input_prompt"]
        yield "mmmu", number, re.sub(r"<image \d>", MARK, prompt), limit


def _of_mathvista(repositories: OfficialRepositories) -> Iterator[tuple[str, int, str, int]]:
    """The image, then the column `query`, which MathVista's README calls the input of the model."""
    file = "evaluation/generate_response.py"
    limit = _found(
        r'"--max_new_tokens", type=int, default=(\d+)', repositories.files("lupantech/MathVista", file) / file
    )
    yield "mathvista", 0, MARK + ROWS["mathvista"][0]["query"], limit


def _found(pattern: str, file: Path) -> int:
    """The number that the pattern's group finds in a file."""
    found = re.search(pattern, file.read_text())
    assert found is not None, f"{file} has no {pattern}"
    return int(found[1])


def _llava(repositories: OfficialRepositories, file: str, turns: list[str], **more: Any) -> Any:
    """A module of llava/eval whose conversations append the user's turns to `turns`."""
    root = repositories.files(LLAVA, "llava/constants.py", "llava/eval", "scripts", "docs/Evaluation.md")
    constants = module_of(root / "llava/constants.py", "llava.constants")

    class Conversation:
        roles = ("USER", "ASSISTANT")

        def copy(self) -> "Conversation":
            return self

        def append_message(self, role: str, text: str | None) -> None:
            turns.append(str(text)) if role == "USER" else None

        def get_prompt(self) -> str:
            return ""

    tokenizer, model = mock.MagicMock(), mock.MagicMock()
    tokenizer.batch_decode.return_value = ["A"]
    model.config.mm_use_im_start_end = False
    builder = module("llava.model.builder", load_pretrained_model=lambda *_: (tokenizer, model, mock.MagicMock(), 2048))
    tools = module("llava.mm_utils", get_model_name_from_path=lambda _: "recorder", **more)
    conversation = module("llava.conversation", conv_templates={"vicuna_v1": Conversation()})
    short = module("shortuuid", uuid=lambda: "u")
    data = module("torch.utils.data", Dataset=object)
    with stand_ins(
        "llava", "torch", llava__constants=constants, llava__model__builder=builder, llava__mm_utils=tools,
        llava__conversation=conversation, shortuuid=short, torch__utils__data=data,
    ):  # fmt: skip
        loaded = module_of(root / file)
    loaded.root, loaded.model = root, model
    return loaded


def _of_llava_short(repositories: OfficialRepositories) -> Iterator[tuple[str, int, str, int]]:
    """The dataset of model_vqa_loader.py, on questions in the form of docs/Evaluation.md."""
    turns: list[str] = []
    official = _llava(repositories, "llava/eval/model_vqa_loader.py", turns)
    form = (official.root / "docs/Evaluation.md").read_text().split("```")[1].strip()
    limit = _found(r'"--max_new_tokens", type=int, default=(\d+)', Path(official.__file__))
    official.args = Namespace(conv_mode="vicuna_v1")
    with mock.patch.object(official.Image, "open"):
        for benchmark in ("textvqa", "ok-vqa", "vqav2"):
            for number, row in enumerate(ROWS[benchmark]):
                line = {"image": "1.png", "text": form.replace("<question>", row["question"])}
                config = Namespace(mm_use_im_start_end=False)
                official.CustomDataset([line], "", None, None, config)[0]
                yield benchmark, number, turns.pop(), limit


def _arguments(folder: Path, questions: Path) -> Namespace:
    return Namespace(
        model_path="m", model_base=None, question_file=str(questions), answers_file=str(folder / "answers/a.jsonl"),
        image_folder=str(folder), conv_mode="vicuna_v1", num_chunks=1, chunk_idx=0, temperature=0, top_p=None,
        num_beams=1, single_pred_prompt=True, all_rounds=False, lang="en",
    )  # fmt: skip


def _of_llava_science(repositories: OfficialRepositories, folder: Path) -> Iterator[tuple[str, int, str, int]]:
    """convert_sqa_to_llava.py in its form CQM-A, then model_vqa_science.py."""
    turns: list[str] = []
    official = _llava(repositories, "llava/eval/model_vqa_science.py", turns)
    rows = ROWS["scienceqa-img"]
    problems = {
        str(number): {**row, "image": "1.png", "lecture": "", "solution": "", "caption": ""}
        for number, row in enumerate(rows)
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    base = module_of(official.root / "scripts/convert_sqa_to_llava_base_prompt.py")
    with stand_ins("fire", convert_sqa_to_llava_base_prompt=base):
        module_of(official.root / "scripts/convert_sqa_to_llava.py").convert_to_llava(str(folder), "test", "CQM-A")
    with mock.patch.object(official.Image, "open"):
        official.eval_model(_arguments(folder, folder / "llava_test_CQM-A.json"))
    limit = official.model.generate.call_args.kwargs["max_new_tokens"]
    yield from (("scienceqa-img", number, turn, limit) for number, turn in enumerate(turns))


def _of_llava_mmbench(repositories: OfficialRepositories, folder: Path) -> Iterator[tuple[str, int, str, int]]:
    turns: list[str] = []
    official = _llava(repositories, "llava/eval/model_vqa_mmbench.py", turns)
    with (folder / "mmbench.tsv").open("w", newline="") as opened:
        written = csv.DictWriter(opened, fieldnames=ROWS["mmbench"][0], delimiter="\t")
        written.writeheader()
        written.writerows(ROWS["mmbench"])
    official.eval_model(_arguments(folder, folder / "mmbench.tsv"))
    limit = official.model.generate.call_args.kwargs["max_new_tokens"]
    yield from (("mmbench", number, turn, limit) for number, turn in enumerate(turns))


# lmms-eval

# Benchmark -> the task's folder, its YAML file, its module and the function that makes the text.
TASKS = {
    "mantis-eval": ("mantis", "mantis.yaml", "utils", "mantis_doc_to_text"),
    "q-bench2": ("qbench", "qbench2_dev.yaml", "utils", "q_bench_doc_to_text"),
    "blink": ("blink", "_default_template_yaml", "utils", "blink_doc_to_text"),
    "mvbench": ("mvbench", "mvbench_action_count.yaml", "utils", "mvbench_doc_to_text"),
    "muirbench": ("muirbench", "muirbench.yaml", "utils", "muir_doc_to_text"),
    "mirb": ("mirb", "mirb.yaml", "utils", "mirb_doc_to_text"),
    "mmmu": ("mmmu", "mmmu_val.yaml", "utils", "mmmu_doc_to_text"),
    "mathvista": ("mathvista", "mathvista_testmini_format.yaml", "utils", "mathvista_doc_to_text"),
    "mmbench": ("mmbench", "mmbench_en_dev.yaml", "en_utils", "mmbench_doc_to_text"),
    "textvqa": ("textvqa", "_default_template_textvqa_yaml", "utils", "textvqa_doc_to_text"),
    "ok-vqa": ("ok_vqa", "_default_template_vqa_yaml", "utils", "ok_vqa_doc_to_text"),
    "vqav2": ("vqav2", "vqav2_val.yaml", "utils", "vqav2_doc_to_text"),
    "scienceqa-img": ("scienceqa", "scienceqa_img.yaml", "utils", "sqa_doc_to_text"),
    "llava-interleave-in-domain": ("llava_interleave_bench", "in_domain.yaml", "utils", "doc_to_text"),
    "llava-interleave-out-of-domain": ("llava_interleave_bench", "out_of_domain.yaml", "utils", "doc_to_text"),
    "mmmu-pro": ("mmmu_pro", "mmmu_pro_standard.yaml", "utils", "mmmu_pro_doc_to_text"),
    "mmmu-pro-vision": ("mmmu_pro", "mmmu_pro_vision.yaml", "utils", "mmmu_pro_doc_to_text"),
    "video-mme": ("videomme", "videomme.yaml", "utils", "videomme_doc_to_text"),
}
IMAGES = {"q-bench2": ("image1", "image2"), "blink": ("image_1", "image_2", "image_3", "image_4"),
          "mvbench": ("frames",), "mantis-eval": ("images",), "muirbench": ("image_list",), "mirb": ("image_list",),
          "mathvista": ("decoded_image",), "video-mme": ("frames",),
          "llava-interleave-in-domain": ("image_0", "image_1"),
          "llava-interleave-out-of-domain": ("image_0", "image_1")}  # fmt: skip


def _of_lmms_eval(repositories: OfficialRepositories) -> list[Record]:
    folders = sorted({f"lmms_eval/tasks/{task[0]}" for task in TASKS.values()})
    root = repositories.files(LMMS, *folders, "lmms_eval/models/simple/mantis.py") / "lmms_eval"
    default = _found(r'gen_kwargs\["max_new_tokens"\] = (\d+)', root / "models/simple/mantis.py")
    records = []
    for benchmark, (folder, file, name, function) in TASKS.items():
        settings = _task(root / "tasks" / folder / file)
        limit = settings.get("generation_kwargs", {}).get("max_new_tokens", default)
        evaluator = module("lmms_eval.tasks.mathvista.mathvista_evals")
        with stand_ins(
            "lmms_eval",
            "loguru",
            "dotenv",
            "tenacity",
            "Levenshtein",
            "openai",
            "requests",
            "rouge",
            "cv2",
            "decord",
            "datasets",
        ):
            for extra in ("mathvista.mathvista_evals", "mmbench.mmbench_evals"):
                if extra.startswith(folder + "."):
                    evaluator = module_of(root / "tasks" / f"{extra.replace('.', '/')}.py")
            with stand_ins(**{f"lmms_eval__tasks__{folder}__{folder}_evals": evaluator}):
                official = module_of(root / "tasks" / folder / f"{name}.py")
        for row in ROWS[benchmark]:
            text = getattr(official, function)({**row}, settings["lmms_eval_specific_kwargs"]["default"])
            prompt = text if MARK in text else MARK * _images_shown(benchmark, row) + text  # as its wrappers do
            missing = _images_shown(benchmark, row) - prompt.count(MARK)
            records.append(_record(benchmark, "lmms-eval", "", row, MARK * missing + prompt, limit))
    return records


def _task(file: Path) -> dict[str, Any]:
    """The settings of a task, with those of the file that it includes. Functions are left out."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    with file.open() as opened:
        settings: dict[str, Any] = yaml.load(opened, Loader)  # a SafeLoader
    if "include" in settings:
        settings = _task(file.parent / settings["include"]) | settings
    return settings


def _images_shown(benchmark: str, row: Row) -> int:
    if benchmark in ("mmmu", "mmmu-pro"):
        return len(set(re.findall(r"<image \d>", row["question"] + row["options"])))
    cells = [row[column] for column in IMAGES.get(benchmark, ("image",))]
    return sum(len(cell) if isinstance(cell, list) else cell is not None for cell in cells)
