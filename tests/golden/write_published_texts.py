"""Runs published chat code on the conversations of compare_tokens.py, and writes published_texts.json.

    python -m tests.golden.write_published_texts LLAVA INTERNVL

LLAVA is llava/conversation.py of LLaVA-VL/LLaVA-NeXT. INTERNVL is
src/transformers/models/internvl/convert_internvl_weights_to_hf.py of huggingface/transformers, which writes the chat
template of the released models. SOURCES says which commits made the file. The file holds texts alone, none of the code.
"""

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from mantis.models.conversation import Conversation
from mantis.models.verification.compare_tokens import cases
from tests.golden.chat_messages import messages
from tests.golden.official_code import module_of, stand_ins

FILE = Path(__file__).with_name("published_texts.json")
SOURCES = {
    "llava-qwen2": 'conv_templates["qwen_1_5"] of LLaVA-VL/LLaVA-NeXT at df17966',
    "internvl": "chat_template in convert_internvl_weights_to_hf.py of huggingface/transformers at 015d3b2",
}

Render = Callable[[Conversation, bool], str]  # the text; with True it ends where the next answer begins


def llava(file: Path) -> Render:
    """Conversation.get_prompt of the official code; it takes a text with its marks."""
    with stand_ins("transformers", "PIL"):
        template = module_of(file).conv_templates["qwen_1_5"]

    def render(conversation: Conversation, asks: bool) -> str:
        chat = template.copy()
        for turn in conversation.turns:
            chat.append_message(chat.roles[turn.role == "assistant"], turn.content)
        if asks:
            chat.append_message(chat.roles[1], None)
        text: str = chat.get_prompt()
        return text

    return render


def internvl(file: Path) -> Render:
    """The template that the program assigns to `chat_template`."""
    assigned = {
        target.id: node.value
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    template = ast.literal_eval(assigned["chat_template"])

    def render(conversation: Conversation, asks: bool) -> str:
        [text], _ = render_jinja_template([messages(conversation)], chat_template=template, add_generation_prompt=asks)
        return str(text)

    return render


def published_texts(render: Render) -> dict[str, dict[str, str]]:
    """For every conversation its whole text, and the prompt for its last answer."""
    found = {}
    for case in cases():
        talk = case.conversation
        asked = Conversation(id=talk.id, turns=talk.turns[:-1], sizes=talk.sizes)
        found[talk.id] = {"text": render(talk, False), "prompt": render(asked, True)}
    return found


def main(arguments: list[str]) -> int:
    """Write the file, and return 0; 2 if arguments are missing."""
    if len(arguments) != 2:
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    renders = {"llava-qwen2": llava(Path(arguments[0])), "internvl": internvl(Path(arguments[1]))}
    found: dict[str, Any] = {
        name: {"source": SOURCES[name], "conversations": published_texts(render)} for name, render in renders.items()
    }
    FILE.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
