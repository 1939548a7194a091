"""Where the values of columns come from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LINEAGE_FACT = "column_lineage"
"""Where the metadata of a provenance has it."""


class ColumnSource(NamedTuple):
    """A column of a dataset."""

    dataset: str
    column: str


ColumnLineage = dict[str, tuple[ColumnSource, ...]]
"""The sources of each column of a version, by its name; none for a column that is made of constants."""


def lineage_to_json(lineage: Mapping[str, Sequence[ColumnSource]]) -> dict[str, Any]:
    """As JSON: for each column the pairs of dataset and column."""
    return {column: [list(source) for source in sources] for column, sources in lineage.items()}


def lineage_from_json(value: Any) -> ColumnLineage:
    """The lineage in JSON that may have come from elsewhere; what does not have its form is left out."""
    if not isinstance(value, Mapping):
        return {}
    return {
        str(column): tuple(
            ColumnSource(str(source[0]), str(source[1]))
            for source in (sources if isinstance(sources, Sequence) and not isinstance(sources, str) else ())
            if isinstance(source, Sequence) and not isinstance(source, str) and len(source) == 2
        )
        for column, sources in value.items()
    }
