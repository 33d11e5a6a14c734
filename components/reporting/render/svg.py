"""SVG elements as safe markup."""

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: object) -> Markup:
    """`<name attributes>children</name>`: text is escaped; class_="x" is class, stroke_width is stroke-width."""
    # Plain strings, each part escaped: Markup's own format is ten times slower, and a report has thousands of elements.
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(map(escape, children))}</{name}>")


def titled(text: str, *children: str, **attributes: object) -> Markup:
    """A group that a browser explains with `text` when it is pointed at."""
    return element("g", element("title", text), *children, **attributes)


def at(share: float) -> str:
    """A share of the drawing's width, as SVG writes it; kept inside."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
