"""`python -m tests.words`: refuse the words that CONTRIBUTING.md lists, in code and documentation."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"\| not \| but \|\n\|---\|---\|\n((?:\|.*\n)+)")
KEPT = ('"door"', "_L.c.door", "row.door")
"""The column of the audit log, whose name is part of every entry's hash."""


def listed() -> re.Pattern[str]:
    """The words of the table in CONTRIBUTING.md, as one pattern."""
    found = TABLE.search((ROOT / "CONTRIBUTING.md").read_text())
    assert found is not None, "CONTRIBUTING.md has the table of words"
    words = [word.strip() for row in found[1].splitlines() for word in row.split("|")[1].split(",")]
    return re.compile(r"\b(" + "|".join(map(re.escape, words)) + r")\b", re.IGNORECASE)


def files() -> list[Path]:
    """What is read by users and maintainers."""
    code = [
        path for name in ("dataset_registry", "dagster_assets", "migrations") for path in (ROOT / name).rglob("*.py")
    ]
    return sorted([*code, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md"])


def findings() -> list[str]:
    """Each listed word with its file and line."""
    pattern = listed()
    return [
        f"{path.relative_to(ROOT)}:{number}: {found[0]!r} is not a word of this project: see CONTRIBUTING.md"
        for path in files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := pattern.search(line)) and not any(kept in line for kept in KEPT)
    ]


if __name__ == "__main__":
    found = findings()
    print("\n".join(found) or "words: 0 findings")
    sys.exit(bool(found))
