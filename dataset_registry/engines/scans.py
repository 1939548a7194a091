"""A table of a version, read by several processes: one resolves the version, each reads some of its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dataset_registry.connection import Connection
from dataset_registry.model.names import MAIN
from dataset_registry.model.records import PartRecord
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


@dataclass(frozen=True)
class TableScan:
    """A table to read, as a value that goes to other processes. It names one version, whatever becomes of the branch."""

    connection: Connection
    dataset: int
    number: int
    components: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    filter: "ds.Expression | None" = None

    @classmethod
    def of(
        cls,
        address: str,
        component: str | Sequence[str] | None = None,
        *,
        columns: Sequence[str] | None = None,
        filter: "ds.Expression | None" = None,
        run_id: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> "TableScan":
        """The table at an address such as `raw/flights@main`, as its branch is now.

        `options` are those of `Connection`; `run_id` is the run that is recorded as reading the version. Raises as
        `Version.to_arrow`.
        """
        connection = Connection.of(options or {})
        registry = connection.open()
        dataset, ref = registry.at(address)
        version = dataset.version(MAIN if ref is None else ref)
        if run_id is not None:
            version.note_read(run_id)
        components = (component,) if isinstance(component, str) else None if component is None else tuple(component)
        return cls(
            connection, dataset.id, version.number, components, None if columns is None else tuple(columns), filter
        )

    def of_columns(self, columns: Sequence[str]) -> "TableScan":
        """The same with these columns only."""
        return replace(self, columns=tuple(columns))

    def with_filter(self, filter: "ds.Expression") -> "TableScan":
        """The same with a further filter."""
        return replace(self, filter=filter if self.filter is None else self.filter & filter)

    @cached_property
    def version(self) -> Version:
        """The version, in this process."""
        return self.connection.open().dataset(self.dataset).version(f"v{self.number}")

    @property
    def schema(self) -> "pa.Schema":
        """The columns and their types."""
        return self.read([]).schema

    def parts(self) -> list[PartRecord]:
        """The parts that may have rows for the filter."""
        return self.version.table_parts(self.names, filter=self.filter)

    def read(self, numbers: Sequence[int], *, is_filtered: bool = True) -> "pa.Table":
        """The rows of parts, in order; those for the filter, or all."""
        filter = self.filter if is_filtered else None
        return self.version.to_arrow(self.names, columns=self.columns, filter=filter, parts=numbers)

    @property
    def names(self) -> list[str] | None:
        """The components to read, None for all tables of the version as one."""
        return None if self.components is None else list(self.components)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "version"}


def in_groups(parts: Sequence[PartRecord], count: int) -> list[list[PartRecord]]:
    """Parts in at most `count` runs of neighbours of about the same size, none of them empty."""
    total = sum(part.size for part in parts)
    groups: list[list[PartRecord]] = []
    done = 0
    for part in parts:
        wanted = done * count // max(1, total)
        if not groups or len(groups) <= wanted:
            groups.append([])
        groups[-1].append(part)
        done += part.size
    return groups
