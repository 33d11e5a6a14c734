"""Write SVG elements as safe markup."""

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: object) -> Markup:
    """Write `<name attributes>children</name>` with escaped text; class_ becomes class, stroke_width stroke-width."""
    # Each part is escaped into a plain string: Markup's own format is ten times slower, and a report has thousands.
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{''.join(map(escape, children))}</{name}>")


def titled(text: str, *children: str, **attributes: object) -> Markup:
    """Write a group for which a browser shows `text` as tooltip."""
    return element("g", element("title", text), *children, **attributes)


def at(share: float) -> str:
    """Write a share of the drawing's width as SVG percentage, limited to 0 to 100 %."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
