"""`python -m tests.golden.write_official_prompts FOLDER`: run the official code, and write official_prompts.json.

FOLDER keeps clones of the official repositories. Missing ones are cloned from GitHub.
"""

import sys
import tempfile
from pathlib import Path

from tests.golden.official_code import OfficialRepositories
from tests.golden.official_prompts import COMMAND, FILE, golden_text


def main(arguments: list[str]) -> int:
    """Write the file, and return 0; 2 if the folder is missing."""
    if len(arguments) != 1:
        print(f"usage: {COMMAND}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mantis-official-") as work:
        repositories = OfficialRepositories(Path(arguments[0]).absolute(), Path(work))
        repositories.clone()
        FILE.write_text(golden_text(repositories))
    print(FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
