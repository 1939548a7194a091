"""Differences between versions."""

from dataclasses import dataclass, field

from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.parts import PartsDiff
from dataset_registry.model.records import VersionRecord
from dataset_registry.model.schema import SchemaDiff


@dataclass(frozen=True, slots=True)
class ComponentDiff:
    """Components by (name, index) that only one of two versions has, or that both have with other content."""

    added: tuple[ComponentKey, ...]
    removed: tuple[ComponentKey, ...]
    changed: tuple[ComponentKey, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from one version to another. `schema` has the tables whose columns differ, by label; `parts` says of tables
    whose rows differ which of their parts do."""

    before: VersionRecord
    after: VersionRecord
    components: ComponentDiff
    schema: dict[str, SchemaDiff]
    parts: dict[str, PartsDiff] = field(default_factory=dict)
