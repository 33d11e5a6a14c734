"""Adds new recipe fields to birth_defaults.json: `python -m tests.golden.write_birth_defaults`. Changes no entry."""

import json

from tests.golden.birth_defaults import FILE, birth_defaults, merged


def main() -> None:
    """Write the file and print its path."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {"required": [], "defaults": {}}
    FILE.write_text(json.dumps(merged(known, birth_defaults()), indent=1) + "\n")
    print(FILE)


if __name__ == "__main__":
    main()
