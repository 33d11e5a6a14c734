"""The content of a message in the form of transformers' chat templates."""

from mantis.models.conversation import IMAGE_MARK


def as_parts(content: str) -> list[dict[str, str]]:
    """A text with marks of images as a list of parts: texts, and an image at each mark."""
    first, *rest = content.split(IMAGE_MARK)
    parts = [{"type": "text", "text": first}]
    for text in rest:
        parts += [{"type": "image"}, {"type": "text", "text": text}]
    return parts
