"""Pictures of pages that a test looks at, for the pages in docs/."""

import os
from pathlib import Path
from typing import Any


def keep_picture(page: Any, name: str, *, after: int = 0, whole: bool = False) -> None:
    """Write NAME.png to the folder MANTIS_SCREENSHOTS; nothing without this variable.

    Args:
        page: a page of playwright.
        name: of the file, without its suffix.
        after: milliseconds to wait, for charts that are drawn late.
        whole: the whole page instead of the window.
    """
    folder = os.environ.get("MANTIS_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(after)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)
