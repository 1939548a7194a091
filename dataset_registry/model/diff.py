"""Differences between versions."""

from dataclasses import dataclass, field

from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.parts import PartsDiff
from dataset_registry.model.records import VersionRecord
from dataset_registry.model.schema import SchemaDiff


@dataclass(frozen=True, slots=True)
class ComponentDiff:
    """The components, by (name, index), that were added, removed or changed between two versions."""

    added: tuple[ComponentKey, ...]
    removed: tuple[ComponentKey, ...]
    changed: tuple[ComponentKey, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences between two versions. `schema` has the tables whose columns differ, by label; `parts` counts the
    changed parts of tables whose rows differ."""

    before: VersionRecord
    after: VersionRecord
    components: ComponentDiff
    schema: dict[str, SchemaDiff]
    parts: dict[str, PartsDiff] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowSummary:
    """The rows that differ between two versions of a table.

    With a `key`, rows with the same key and other values are `changed`, and `cells` counts the different values by column.
    Without one, rows are a multiset: they are added and removed.
    """

    added: int
    removed: int
    changed: int
    unchanged: int
    cells: dict[str, int] = field(default_factory=dict)
    key: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)
