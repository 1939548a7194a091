"""The changes of a commit to the components of the previous version, and the resulting edits of its manifest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

from dataset_registry.content.stage import Staged
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.chunks import FileFacts
from dataset_registry.model.manifest import MOST_LEVELS, ComponentKey, Entry, canonical_json, is_nested_deeper
from dataset_registry.model.partitions import belongs, prefix
from dataset_registry.model.parts import legacy_parts_digest
from dataset_registry.store import Spooled

if TYPE_CHECKING:
    from dataset_registry.catalog.manifests import StoredManifest

OVERLAY = "overlay"
COMPONENT_TYPES = ("data", "metadata", "schema", OVERLAY)


@dataclass(frozen=True, slots=True)
class StagedComponent:
    """A component to set: its content and its manifest fields."""

    staged: Staged
    type: str = "data"
    metadata: Mapping[str, object] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    """Renames of columns that were declared, old to new."""


RowAction = Literal["append", "upsert", "delete"]


@dataclass(frozen=True, slots=True)
class RowEdit:
    """Rows to append to a table, to upsert into it, or to delete from it.

    `staged` are the rows, or for `delete` the keys of the rows; `where` is an SQL condition in their place. `key` is the key of a
    table that is new.
    """

    action: RowAction
    staged: Staged | None = None
    where: str | None = None
    key: tuple[str, ...] = ()


@dataclass(slots=True)
class Change:
    """The changes of a commit to the components of the previous version.

    `put` sets components by (name, index). Names in `replaced` lose every index that is not put. `removed` are removed
    names, or single indexes of them. `partitions` lose every component that is not put; `everything` clears the whole
    version first. `cleared` are components that were set and then removed again: they are removed if they exist. `edits` change
    rows of tables; `operations.rows` turns them into components to set.
    """

    put: dict[ComponentKey, StagedComponent] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    removed: dict[str, set[int] | None] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=set)
    everything: bool = False
    cleared: set[tuple[str, int | None]] = field(default_factory=set)
    edits: dict[ComponentKey, RowEdit] = field(default_factory=dict)
    _indexes: dict[str, set[int]] = field(default_factory=dict)  # of each name in `put`: a commit may set 100,000

    def __bool__(self) -> bool:
        return bool(self.put or self.removed or self.cleared or self.partitions or self.everything or self.edits)

    def add(self, name: str, index: int, component: StagedComponent) -> None:
        """Set a component. Where it was removed in the same draft, the others that were removed with it stay so."""
        self.put[name, index] = component
        self._indexes.setdefault(name, {index}).add(index)
        if name not in self.removed:
            return
        indexes = self.removed[name]
        if indexes is None:
            del self.removed[name]
            self.replaced.add(name)
        else:
            indexes.discard(index)
            if not indexes:
                del self.removed[name]

    def remove(self, name: str, index: int | None) -> None:
        """Remove a component, all of its indexes or one, and discard what this draft had set of it."""
        known = list(self._indexes.get(name, ()))
        if self._drop(
            name, [i for i in known if index in (None, i)]
        ):  # it may be there before, or not: the draft knew it, so its removal is no mistake
            self.cleared.update([(name, index)] if index is not None else [(name, None)])
        elif index is None:
            self.removed[name] = None
        elif (indexes := self.removed.setdefault(name, set())) is not None:
            indexes.add(index)

    def forget(self, name: str) -> None:
        """Discard all changes of a component in this draft."""
        self._drop(name, list(self._indexes.get(name, ())))
        self.removed.pop(name, None)

    def _drop(self, name: str, indexes: Sequence[int]) -> bool:
        """Discard these indexes. Returns whether any was set."""
        for index in indexes:
            del self.put[name, index]
            self._indexes[name].discard(index)
        return bool(indexes)

    def contents(self) -> "ChangeContents":
        """The contents of the components that it sets."""
        staged = [component.staged for component in self.put.values()]
        return ChangeContents(
            {file.content_hash: file for s in staged for file in s.spooled},
            {file.content_hash: s.format for s in staged for file in s.spooled},
            {s.content_hash: s for s in staged if s.parts is not None},
            {content_hash: facts for s in staged for content_hash, facts in s.facts.items()},
        )

    def names(self) -> set[str]:
        """The names of the components that it sets."""
        return {name for name, _ in self.put}


@dataclass(frozen=True, slots=True)
class ChangeContents:
    """The contents of a change by hash: spooled files with their formats and facts, and tables in parts."""

    files: Mapping[str, Spooled]
    formats: Mapping[str, str]
    tables: Mapping[str, Staged]
    facts: Mapping[str, FileFacts]


def staged_component(
    staged: Staged, type: str, metadata: Mapping[str, object], renames: Mapping[str, str] | None = None
) -> StagedComponent:
    """Build a component to set. Raises `InputError` for an unknown type or metadata that is not JSON."""
    if type not in COMPONENT_TYPES:
        raise InputError(f"Invalid component type {type!r}. Use one of: {', '.join(COMPONENT_TYPES)}.", type=type)
    if not metadata:
        return StagedComponent(staged, type, {}, renames or {})
    if is_nested_deeper(dict(metadata)):
        raise InputError(f"The metadata of a component is nested more than {MOST_LEVELS} levels deep. Flatten it.")
    try:
        canonical_json(dict(metadata)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"The metadata of a component must be a JSON object: {error}.") from error
    return StagedComponent(staged, type, metadata, renames or {})


def edits_of(change: Change, before: "StoredManifest | None", where: str) -> dict[ComponentKey, Entry | None]:
    """The edits of the base manifest for a change. Raises `NotFound`; `where` names the base in its message."""
    edits: dict[ComponentKey, Entry | None] = {}
    if before is not None:
        edits.update((entry.key, None) for entry in _cleared(change, before))
    for name, indexes in change.removed.items():
        there = [entry.key for entry in before.named(name)] if before else []
        gone = there if indexes is None else [key for key in there if key[1] in indexes]
        if len(gone) < (1 if indexes is None else len(indexes)):
            wanted = f" with index {min(indexes - {key[1] for key in gone})}" if indexes else ""
            raise NotFound(
                f"{where} has no component {name!r}{wanted} that could be removed.",
                component=name,
            )
        edits.update((key, None) for key in gone)
    for key, component in change.put.items():
        metadata = canonical_json(dict(component.metadata)) if component.metadata else None
        edits[key] = Entry(*key, component.type, component.staged.content_hash, component.staged.format, metadata)
    return edits


def with_legacy_digests(change: Change, before: "StoredManifest") -> Change:
    """Keep the digests of format `parts/1` that the previous version has for unchanged tables, so that unchanged data
    creates no version."""
    legacy: dict[ComponentKey, StagedComponent] = {}
    for key, component in change.put.items():
        staged = component.staged
        if staged.parts is None:
            continue
        digest = legacy_parts_digest(staged.parts)
        if any((e.key, e.content_hash, e.format) == (key, digest, staged.format) for e in before.named(key[0])):
            legacy[key] = replace(component, staged=replace(staged, content_hash=digest))
    return replace(change, put={**change.put, **legacy}) if legacy else change


def _cleared(change: Change, before: "StoredManifest") -> Iterator[Entry]:
    """The entries that the change removes before it sets components."""
    if change.everything:
        yield from before.since("")
        return
    for name in change.replaced:
        yield from before.named(name)
    for name, index in change.cleared:
        yield from (entry for entry in before.named(name) if index in (None, entry.index))
    for key in change.partitions:
        inside = chain(before.named(key), before.prefixed(prefix(key)))
        yield from (entry for entry in inside if belongs(entry.name, json.loads(entry.metadata or "{}"), key))
