"""Look-alike names: datasets whose name only looks like one under a governed or reserved prefix.

Two names look alike if each of their characters does, by the confusables of Unicode Technical Standard 39. ASCII
letters are distinguished: `raw/x1` and `raw/xl` do not look alike.
"""

import unicodedata
from functools import cache

from dataset_registry.catalog import Transaction, datasets, grants
from dataset_registry.errors import InvalidName
from dataset_registry.model.names import LOST_AND_FOUND, RUNS


def refuse_lookalike(tx: Transaction, name: str) -> None:
    """Raise `InvalidName` for a new name that looks like one under a governed or reserved prefix, or like a dataset there."""
    for prefix in (*grants.governed_prefixes(tx), RUNS, LOST_AND_FOUND):
        if name.startswith(prefix):
            for other in datasets.names_under(tx, prefix):
                if _twin(name, other) == name:
                    raise _lookalike(name, other)
        elif _twin(name, prefix) is not None:
            raise _lookalike(name, prefix)


def refuse_lookalike_prefix(tx: Transaction, prefix: str) -> None:
    """Raise `InvalidName` for a prefix that is to be governed, where it looks like another governed or reserved prefix, or where
    datasets have names that look as if they were under it."""
    for other in (*grants.governed_prefixes(tx), RUNS, LOST_AND_FOUND):
        if _twin(prefix, other) is not None or _twin(other, prefix) is not None:
            raise _lookalike(prefix, other)
    if alike := [name for name in datasets.names_under(tx, "") if _twin(name, prefix) is not None]:
        raise InvalidName(
            f"These datasets look as if they were under {prefix!r}, and are not: {', '.join(map(ascii, alike[:10]))}. Rename "
            "or delete them first.",
            datasets=alike,
        )


def _twin(name: str, other: str) -> str | None:
    """The beginning of a name that looks like another text but differs, or None."""
    wanted, length = _skeleton(other), 0
    for position, character in enumerate(name, 1):
        length += len(_skeleton(character))
        if length >= len(wanted):
            beginning = name[:position]
            is_plain = beginning == other or (beginning.isascii() and other.isascii())
            return None if is_plain or _skeleton(beginning) != wanted else beginning
    return None


def _lookalike(name: str, other: str) -> InvalidName:
    odd = next((c for c, o in zip(name, other, strict=False) if c != o), name[-1])
    return InvalidName(
        f"{name!r} looks like {other!r}, but differs: it has {odd!r} ({unicodedata.name(odd, '?')}). Write it "
        "with the same letters, or choose another name.",
        name=name,
    )


def _skeleton(text: str) -> str:
    return "".join(_prototype(part) for character in text for part in unicodedata.normalize("NFKC", character))


@cache
def _prototype(character: str) -> str:
    """The representative of the characters that look like this one, in ASCII if possible."""
    if character.isascii():
        return character
    from confusable_homoglyphs import confusables

    alike: list[str] = [other["c"] for other in confusables.confusables_data.get(character, ())]
    return next((other for other in alike if other.isascii()), min([character, *alike]))
