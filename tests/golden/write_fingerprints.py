"""Rewrites fingerprints.json: `python -m tests.golden.write_fingerprints`. Commit the difference with its reason."""

from tests.golden.fingerprints import FILE, golden_text


def main() -> None:
    """Write the file and print its path."""
    FILE.write_text(golden_text())
    print(FILE)


if __name__ == "__main__":
    main()
