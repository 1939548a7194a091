"""Names that look like others: a dataset whose name reads as one under a governed or reserved prefix, and is not.

Two names look alike when their characters do, one by one, by the confusables of Unicode Technical Standard 39. Letters of ASCII
alone are told from one another: `raw/x1` and `raw/xl` are two names.
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
                _refuse(name, other, name, other)
        else:
            _refuse(name, prefix, name[: len(prefix)], prefix)


def _refuse(name: str, other: str, beginning: str, looks: str) -> None:
    both_ascii = beginning.isascii() and looks.isascii()
    if beginning != looks and not both_ascii and _skeleton(beginning) == _skeleton(looks):
        odd = next(c for c, o in zip(name, other, strict=False) if c != o)
        raise InvalidName(
            f"{name!r} looks like {other!r}, and is another name: it has {odd!r} ({unicodedata.name(odd, '?')}). Write it "
            "with the same letters, or choose another name.",
            name=name,
        )


def _skeleton(text: str) -> str:
    return "".join(_prototype(character) for character in unicodedata.normalize("NFKC", text))


@cache
def _prototype(character: str) -> str:
    """One character for all that look like this one: that of ASCII, where there is one."""
    if character.isascii():
        return character
    from confusable_homoglyphs import confusables

    alike: list[str] = [other["c"] for other in confusables.confusables_data.get(character, ())]
    return next((other for other in alike if other.isascii()), min([character, *alike]))
