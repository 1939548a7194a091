"""The public interfaces of datasets and drafts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dataset_registry.content.change import Change, RowAction, RowEdit, staged_component
from dataset_registry.content.gc_pause import gc_paused
from dataset_registry.content.stage import Staged, stage, with_ids, with_key
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.checks import Taint
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.diff import Diff, RowSummary
from dataset_registry.model.manifest import component_label
from dataset_registry.model.merge_plans import MergeKind, MergeOptions, MergePlan
from dataset_registry.model.names import DATA, MAIN, component_name, pointer_name, several
from dataset_registry.model.partitions import partition_key
from dataset_registry.model.parts import ChunkingRule, Part
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import (
    CommitResult,
    ComponentRecord,
    DatasetRecord,
    Head,
    NewDataset,
    PointerRecord,
    Production,
    Provenance,
)
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.model.strategies import Strategy, strategies_of
from dataset_registry.store import Spool, Spooled
from dataset_registry.tabular.formats import is_table
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow

Strategies = str | Strategy | Sequence[str | Strategy]
"""One strategy for conflicts, or several (see `Dataset.merge`)."""


class Dataset(ABC):
    """A named dataset with its versions."""

    def __init__(self, record: DatasetRecord) -> None:
        self.record = record

    @property
    def id(self) -> int:
        """The dataset's id; a rename keeps it."""
        return self.record.id

    @property
    def name(self) -> str:
        """The dataset's name, a path like `raw/flights`."""
        return self.record.name

    @property
    def description(self) -> str | None:
        """The description."""
        return self.record.description

    # --- committing ------------------------------------------------------------------------------------------------

    def commit(
        self,
        components: Mapping[str, Any],
        *,
        key: str | Sequence[str] = (),
        renames: Mapping[str, str] | None = None,
        read: Mapping[str, Any] | None = None,
        message: str | None = None,
        branch: str = MAIN,
        parents: str | Sequence[str] = (),
        overwrite: bool = False,
        fallback: str | None = None,
        provenance: Provenance | None = None,
        trust_stat: bool = False,
    ) -> Version:
        """Commit components as a new version; the others carry over from the previous version.

        A component is a path, bytes, a binary stream, or a table (Arrow table or reader, pandas or polars frame,
        LazyFrame, DuckDB relation); a list of those becomes components indexed 0, 1, 2 …. Content equal to the head of
        the branch creates no new version: the head is returned.

        `key` are the columns that identify the rows of a table. A table is split into parts by its key, so that a
        change of few rows rewrites few parts. Later versions keep the key; without one, the columns that tell the rows
        of the first version apart are used.

        `renames` are columns of tables that have another name now, old to new. A merge takes a renamed column for the same one.
        A column at the same place with the same values is taken for a renamed one without it.

        `read` are read options for the files among the components, such as `{"types": {"zip": "string"}, "delimiter":
        ";"}` (see `dataset_registry.model.reading.ReadOptions`, and `format`). They are part of the format of a
        component. Later versions keep them; `read={}` removes them.

        `parents` (refs, the branch's head first) creates a version with several parents. `overwrite` replaces
        concurrent changes of the same components instead of raising `CommitConflict`. `trust_stat` skips reading a path
        whose size, times and inode are unchanged since it was last committed with this option from this machine. If the
        dataset does not have the branch yet, it starts from the head of the branch `fallback`.
        """
        if not isinstance(components, Mapping):
            raise InputError(
                f"commit takes a dict of names and contents like {{'data': value}}, not a {type(components).__name__}."
            )
        key = several(key)
        draft = self.draft(
            branch,
            message=message,
            parents=parents,
            overwrite=overwrite,
            fallback=fallback,
            provenance=provenance,
            trust_stat=trust_stat,
        )
        listed = {name: value if isinstance(value, list | tuple) else [value] for name, value in components.items()}
        tables = {name for name, values in listed.items() if any(is_table(value) for value in values)}
        if key and not tables:
            raise InputError(
                "A key needs a table, but no table is committed. Read the file into a table first.", key=list(key)
            )
        with gc_paused(0 if tables else len(listed)), draft:
            for name, values in listed.items():
                is_table_here = name in tables
                if is_table_here:
                    draft.replace(name, values, key=key, renames=renames)
                else:
                    draft.replace(name, values, read=read)
        return draft.version

    def append(
        self, rows: Any, component: str = DATA, *, key: str | Sequence[str] = (), branch: str = MAIN, **options: Any
    ) -> Version:
        """Commit a version with more rows in a table (see `Draft.append`); `options` are those of `draft`.

        Only the parts of the table in which rows change are read and written. If the table changes on the branch in the
        meantime, the rows are added to the new head.
        """
        with self.draft(branch, **options) as draft:
            draft.append(component, rows, key=key)
        return draft.version

    def upsert(
        self, rows: Any, component: str = DATA, *, key: str | Sequence[str] = (), branch: str = MAIN, **options: Any
    ) -> Version:
        """Commit a version in which rows replace those with the same key, or are inserted (see `Draft.upsert`). As `append`."""
        with self.draft(branch, **options) as draft:
            draft.upsert(component, rows, key=key)
        return draft.version

    def delete_rows(
        self,
        rows: Any = None,
        component: str = DATA,
        *,
        where: str | None = None,
        branch: str = MAIN,
        **options: Any,
    ) -> Version:
        """Commit a version without some rows of a table (see `Draft.delete_rows`). As `append`."""
        with self.draft(branch, **options) as draft:
            draft.delete_rows(component, rows, where=where)
        return draft.version

    @abstractmethod
    def draft(
        self,
        branch: str = MAIN,
        *,
        message: str | None = None,
        parents: str | Sequence[str] = (),
        overwrite: bool = False,
        fallback: str | None = None,
        provenance: Provenance | None = None,
        trust_stat: bool = False,
        progress: Progress = silent,
    ) -> "Draft":
        """Collect changes in a `with` block and commit them at its end; on an exception nothing is committed."""

    # --- history ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def version(self, ref: str = MAIN) -> Version:
        """Resolve a ref to a version: a branch, a tag, `v6`, a digest prefix, any of them followed by `~2` or `^2`.

        Raises `InvalidRef`, `NotFound`.
        """

    @abstractmethod
    def log(self, ref: str = MAIN, *, limit: int | None = None) -> list[Version]:
        """The history of a ref, newest first."""

    @abstractmethod
    def tree(self) -> list[Version]:
        """Every version of the dataset, newest first."""

    @abstractmethod
    def children(self, ref: str) -> list[Version]:
        """The children of a version, oldest first."""

    @abstractmethod
    def memoized(self, memo_digest: str, *, limit: int = 20) -> list[Production]:
        """The productions whose provenance has this `memo_digest`, newest first. At most 100."""

    @abstractmethod
    def merge_bases(self, left: str, right: str) -> list[Version]:
        """The best common ancestors of two refs, newest first: several after criss-cross merges, none if unrelated."""

    def merge_base(self, left: str, right: str) -> Version | None:
        """The newest of `merge_bases`, None if the refs have no common history."""
        bases = self.merge_bases(left, right)
        return bases[0] if bases else None

    @abstractmethod
    def diff(self, before: str, after: str) -> Diff:
        """Compare two refs: `.components` has the changed components, `.schema` the changed columns per table."""

    @abstractmethod
    def diff_summary(self, before: str, after: str, component: str | None = None) -> dict[str, RowSummary]:
        """Count the rows and cells that differ between two refs, for each table that changed, or for one component.

        Rows are matched by the table's key; without one, rows are a multiset. A ref may be one of another dataset
        (`raw/flights@main`). CSV, JSON and Excel files are compared as tables. Nothing is read where hashes answer.
        """

    @abstractmethod
    def diff_rows(
        self,
        before: str,
        after: str,
        component: str | None = None,
        *,
        index: int = 0,
        sheet: str | None = None,
        key: str | Sequence[str] = (),
        limit: int | None = None,
    ) -> "pyarrow.RecordBatchReader":
        """Stream the rows of a table that differ between two refs.

        Columns: `change` (`added`, `removed`, `changed`), the key, and of every other column `before_…` and `after_…`. Of a
        table without a key, the columns of the rows. `key` compares by other columns than the declared key.
        Raises `NotFound`, `InputError` for a key that is not unique.
        """

    # --- merging ---------------------------------------------------------------------------------------------------

    def plan_merge(
        self,
        ref: str,
        into: str = MAIN,
        *,
        how: MergeKind = "merge",
        strategy: Strategies = "fail",
        resolutions: "Mapping[str, Any] | None" = None,
        plan: str | None = None,
        fast_forward: bool = True,
    ) -> MergePlan:
        """The plan of a merge: the components and rows that it would change, and its conflicts. Nothing is changed.

        `how` plans a `cherry-pick` or a `revert` instead. The other arguments are those of `merge`.
        """
        return self._plan_merge(how, ref, into, _merge_options(strategy, resolutions, plan, fast_forward, None))

    def merge(
        self,
        ref: str,
        into: str = MAIN,
        *,
        strategy: Strategies = "fail",
        resolutions: "Mapping[str, Any] | None" = None,
        plan: str | None = None,
        fast_forward: bool = True,
        message: str | None = None,
    ) -> Version:
        """Merge a ref into a branch. Returns the new head of the branch.

        Components that one side changed are taken from it. Tables that both changed are merged by columns, rows and cells,
        with their key, or as multisets. Only the parts of a table in which rows change are read and written.

        `strategy` resolves conflicts: `fail`, `ours`, `theirs`, `union`, `newest`; or a list of them for single components,
        columns or kinds, of which the last one that applies wins: `["ours", "theirs:component=part/*,column=price"]`.
        `resolutions` are tables like that of `conflicts`, by component, with the column `take` filled in, or with columns of
        the table's names that have the values to take. They resolve the conflicts of `plan` (the id of a `MergePlan`);
        if the branch moved in between, those whose values are unchanged.

        Raises `MergeConflict` for conflicts that are left; its field `conflicts` lists them.
        """
        options = _merge_options(strategy, resolutions, plan, fast_forward, message)
        return self._merge("merge", ref, into, options)

    def cherry_pick(
        self,
        ref: str,
        onto: str = MAIN,
        *,
        strategy: Strategies = "fail",
        resolutions: "Mapping[str, Any] | None" = None,
        plan: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Apply the changes of one version, those since its first parent, to a branch. Otherwise as `merge`."""
        return self._merge("cherry-pick", ref, onto, _merge_options(strategy, resolutions, plan, True, message))

    def revert(
        self,
        ref: str,
        on: str = MAIN,
        *,
        strategy: Strategies = "fail",
        resolutions: "Mapping[str, Any] | None" = None,
        plan: str | None = None,
        message: str | None = None,
    ) -> Version:
        """Undo the changes of one version, those since its first parent, on a branch. Otherwise as `merge`."""
        return self._merge("revert", ref, on, _merge_options(strategy, resolutions, plan, True, message))

    def conflicts(
        self,
        ref: str,
        into: str = MAIN,
        component: str = DATA,
        *,
        how: MergeKind = "merge",
        strategy: Strategies = "fail",
    ) -> "pyarrow.Table":
        """The rows of a component that are in conflict in a merge.

        Columns: `kind`; `columns`, those with different values; the key; of every other column `base_…`, `ours_…` and
        `theirs_…`; and `take`, which is empty: fill it in (`ours`, `theirs`, `base`, `drop`) and pass the table to `merge` as a
        resolution. Raises `NotFound` if the component has no rows in conflict.
        """
        return self._conflicts(how, ref, into, component, _merge_options(strategy, None, None, True, None))

    @abstractmethod
    def _plan_merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> MergePlan: ...

    @abstractmethod
    def _merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> Version: ...

    @abstractmethod
    def _conflicts(
        self, how: MergeKind, ref: str, branch: str, component: str, options: MergeOptions
    ) -> "pyarrow.Table": ...

    # --- branches and tags -----------------------------------------------------------------------------------------

    @abstractmethod
    def create_branch(self, name: str, ref: str = MAIN) -> PointerRecord:
        """Create a branch at `ref`. Raises `InvalidName`, `AlreadyExists`, `NotFound`."""

    @abstractmethod
    def create_tag(self, name: str, ref: str = MAIN) -> PointerRecord:
        """Create a tag. Tags never move. Raises `InvalidName`, `AlreadyExists`, `TagImmutable`, `NotFound`."""

    @abstractmethod
    def move_branch(self, name: str, ref: str, *, expect: str | None = None) -> PointerRecord:
        """Move a branch to another version; with `expect`, only if it is at that version.

        Raises `BranchMoved`, `TagImmutable`, `NotFound`.
        """

    @abstractmethod
    def delete_branch(self, name: str) -> None:
        """Delete a branch; its versions stay. Raises `NotFound`."""

    @abstractmethod
    def delete_tag(self, name: str) -> None:
        """Delete a tag; its name cannot be reused. Raises `NotFound`."""

    @abstractmethod
    def branch(self, name: str) -> PointerRecord:
        """The branch (or tag) of this name. Raises `NotFound`."""

    @abstractmethod
    def branches(self) -> list[PointerRecord]:
        """The branches, by name."""

    @abstractmethod
    def tags(self) -> list[PointerRecord]:
        """The tags, by name."""

    # --- the dataset itself ----------------------------------------------------------------------------------------

    @abstractmethod
    def update(self, *, description: str) -> None:
        """Change the description."""

    @abstractmethod
    def rename(self, name: str) -> None:
        """Change the name; versions, branches and tags stay. Raises `InvalidName`, `AlreadyExists`."""

    @abstractmethod
    def absolve(self, ref: str, because: str) -> list[Taint]:
        """Close the taints of a version, so that its content may reach protected branches. Returns them.

        It takes admin permission, and is recorded in the audit log with the reason. Raises `InputError` if the version is not
        tainted.
        """

    @abstractmethod
    def delete_version(self, ref: str) -> None:
        """Delete a version. Raises `InUse` while a branch, a tag or a child references it."""

    @abstractmethod
    def delete(self) -> int:
        """Delete the dataset with its versions, branches and tags. Returns the number of versions."""

    def __repr__(self) -> str:
        return f"<Dataset {self.name}>"


def _merge_options(
    strategy: Strategies,
    resolutions: "Mapping[str, Any] | None",
    plan: str | None,
    fast_forward: bool,
    message: str | None,
) -> MergeOptions:
    tables = {}
    if resolutions:
        from dataset_registry.tabular.encoded import table_from

        tables = {component: table_from(value) for component, value in resolutions.items()}
    return MergeOptions(strategies_of(strategy), tables, plan, fast_forward, message)


def resolutions_as_json(options: MergeOptions) -> dict[str, list[dict[str, Any]]]:
    """The resolutions of a merge as JSON: rows by component."""
    if not options.resolutions:
        return {}
    from dataset_registry.tabular.encoded import json_value

    return {component: json_value(table.to_pylist()) for component, table in options.resolutions.items()}


def as_stored(component: ComponentRecord, captured: ComponentSchema | None, spooled: Sequence[Spooled]) -> Staged:
    """A stored component, to be committed again to a server: its file, or the parts of its table (the server counts rows)."""
    is_file = [file.content_hash for file in spooled] == [component.content_hash]
    parts = None if is_file else tuple(Part(file.content_hash, file.size, 0) for file in spooled)
    digest = str(component.content_hash)
    return Staged(digest, component.size, component.format, captured, tuple(spooled), parts)


class Draft(ABC):
    """Changes to components that become one version, all or none.

    Content is read and its schema is captured when it is added. `version` and `result` are available after the commit.
    """

    def __init__(
        self,
        dataset: DatasetRecord | NewDataset,
        branch: str,
        *,
        message: str | None = None,
        parents: str | Sequence[str] = (),
        overwrite: bool = False,
        fallback: str | None = None,
        provenance: Provenance | None = None,
        trust_stat: bool = False,
        progress: Progress = silent,
    ) -> None:
        self._dataset = dataset
        branch = pointer_name(branch)
        fallback = pointer_name(fallback) if fallback is not None else None
        self._change = Change()
        self._sources: list[int] = []
        self._result: CommitResult | None = None
        self.provenance = provenance
        self._trust_stat = trust_stat
        self._progress = progress
        self._options = CommitOptions(
            branch=branch,
            message=message,
            base=self._head(branch, fallback),
            overwrite=overwrite,
            fallback=fallback,
            parents=several(parents),
        )
        self._spool: Spool | None = None

    def __enter__(self) -> "Draft":
        if self._result is not None:
            raise InputError("This draft was committed. Begin another one with dataset.draft().")
        self._spool = Spool(self._scratch, self._progress).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._spool is not None, "entered"
        with self._spool as spool:
            self._spool = None
            if kind is None:
                options = replace(
                    self._options, provenance=self.provenance, sources=tuple(dict.fromkeys(self._sources))
                )
                self._result = self._commit(spool, options)
            else:
                self._change = Change()  # its contents are deleted with the spool

    def add(
        self,
        name: str,
        value: Any,
        *,
        index: int = 0,
        type: str = "data",
        metadata: Mapping[str, object] | None = None,
        format: str | None = None,
        read: Mapping[str, Any] | None = None,
        key: str | Sequence[str] = (),
        renames: Mapping[str, str] | None = None,
        replace: bool = False,
    ) -> None:
        """Set one component: `value` as for `Dataset.commit`. Setting it twice in one draft requires `replace=True`.

        `type` is `data`, `metadata`, `schema` or `overlay`; `metadata` is any JSON object; `format` overrides the
        format by file name (`binary` stores it without a schema); `read`, `key` and `renames` as for `Dataset.commit`.
        Raises `InvalidName`, `UnsupportedType`, `UnreadableFile`, `InputError`.
        """
        name = self._free(name, index, replace=replace)
        staged = stage(
            self._captured,
            self._entered,
            value,
            name=name,
            format=format,
            read=read,
            key=several(key),
            renames=renames,
            previous=partial(self._previous, name, index),
            known=self._known if self._trust_stat else None,
        )
        self._change.add(name, index, staged_component(staged, type, metadata or {}, renames))

    @property
    def _entered(self) -> Spool:
        """The spool inside the with block. Raises `InputError` outside of it."""
        if self._spool is None:
            raise InputError("A draft can only be changed inside its with block: with dataset.draft() as draft: …")
        return self._spool

    def _free(self, name: str, index: int, *, replace: bool = False) -> str:
        """The checked name of a component that may be set. Raises `InputError` if the draft changes it already."""
        assert self._entered
        name = component_name(name)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 1 << 31:
            raise InputError(f"Invalid index {index!r} of a component: expected 0, 1, 2 ….", index=index)
        if (name, index) in self._change.edits:
            raise self._changed_already(name, index)
        if not replace and (name, index) in self._change.put:
            raise InputError(
                f"This draft already sets the component {component_label(name, index)!r}. Use another name, "
                "or replace it: draft.add(…, replace=True).",
                component=name,
            )
        return name

    def replace(
        self,
        name: str,
        values: Sequence[Any],
        *,
        key: str | Sequence[str] = (),
        renames: Mapping[str, str] | None = None,
        read: Mapping[str, Any] | None = None,
    ) -> None:
        """Set a component to these values, indexed 0, 1, 2 …, and remove all other indexes of the name.

        `key` and `renames` apply to tables, `read` (read options) to files.
        """
        name = component_name(name)
        if not values:
            raise InputError(f"No values given for {name!r}. Remove it with draft.remove({name!r}).", component=name)
        self._change.forget(name)
        for index, value in enumerate(values):
            self.add(name, value, index=index, key=key, renames=renames, read=read)
        self._change.replaced.add(name)

    def restore(self, version: Version, name: str, *, index: int = 0) -> None:
        """Set a component to that of another version of the dataset. Its content is not read.

        Raises `InputError` for a version of another dataset, `NotFound`.
        """
        if not isinstance(self._dataset, DatasetRecord) or version.record.dataset_id != self._dataset.id:
            raise InputError(f"{version} is a version of another dataset. Add its content: draft.add({name!r}, …).")
        name = self._free(name, index)
        found = next((c for c in version.components_named([name]) if c.index == index), None)
        if found is None:
            raise NotFound(f"{version} has no component {component_label(name, index)!r}.", component=name)
        self._change.add(name, index, staged_component(self._stored(version, found), found.type, found.metadata))
        self._sources.append(version.id)

    def concatenate(
        self,
        name: str,
        tables: Sequence[tuple[Version, str]],
        *,
        index: int = 0,
        metadata: Mapping[str, object] | None = None,
        key: str | Sequence[str] = (),
        replace: bool = False,
    ) -> None:
        """Set a component to the rows of tables, one behind the other: of components of versions, in the registry of the draft.

        Their parts are shared; only rows around the ends of the tables are read and written again, so that the table has the
        parts that it would have if it were written at once. Raises `InputError` for tables whose columns or types differ,
        `NotFound`.
        """
        self._concatenate(name, tables, index=index, metadata=metadata, key=several(key), replace=replace)

    def _concatenate(
        self,
        name: str,
        tables: Sequence[tuple[Version, str]],
        *,
        index: int = 0,
        metadata: Mapping[str, object] | None = None,
        key: Sequence[str] = (),
        replace: bool = False,
        rules: Sequence[ChunkingRule | None] | None = None,
    ) -> None:
        """As `concatenate`; `rules` as for `stage_joined`."""
        from dataset_registry.content.joined import stage_joined

        if not tables:
            raise InputError(f"No tables given for {name!r}. Remove it with draft.remove({name!r}).", component=name)
        name = self._free(name, index, replace=replace)
        pieces: list[tuple[str, Staged]] = []
        for version, component in tables:
            found = version.components_named([component])
            if not found:
                raise NotFound(f"{version} has no component {component!r}.", component=component)
            pieces += ((f"{version}:{component}", self._stored(version, piece)) for piece in found)
            if isinstance(self._dataset, DatasetRecord) and version.record.dataset_id == self._dataset.id:
                self._sources.append(version.id)
        staged = stage_joined(self._entered, pieces, rules)
        before = self._previous(name, index)
        previous = before.tables[0] if before and before.tables else None
        staged = with_key(with_ids(staged, previous, {}), key or (previous.key if previous else ()))
        self._change.add(name, index, staged_component(staged, "data", metadata or {}))

    def _add_piece(
        self, name: str, rows: Any, *, key: Sequence[str], previous: ComponentSchema | None
    ) -> TableSchema | None:
        """Add a table that becomes a part of a larger one, split as that one, of which `previous` is the version before. Returns
        its schema."""
        staged = stage(
            self._captured, self._entered, rows, name=name, key=key, previous=lambda: previous, is_piece=True
        )
        self._change.add(self._free(name, 0), 0, staged_component(staged, "data", {}))
        return staged.schema.tables[0] if staged.schema else None

    def clear(self) -> None:
        """Remove all components, except those that this draft adds."""
        if self._change.edits:
            raise self._changed_already(*next(iter(self._change.edits)))
        self._change.everything = True

    def clear_partition(self, key: str) -> None:
        """Remove all components of a partition, except those that this draft adds (see `dataset_registry.model.partitions`)."""
        self._change.partitions.add(partition_key(key))

    def append(self, name: str, rows: Any, *, index: int = 0, key: str | Sequence[str] = ()) -> None:
        """Add rows to a table, behind its last row. `rows` is a table, or the path of a CSV, JSON, Excel or Parquet file.

        A table that does not exist yet is created, with `key`. The commit raises `InputError` for a key that the table has
        already, for columns that it lacks, and for values that do not fit its types.
        """
        self._edit_rows(name, index, "append", rows, key)

    def upsert(self, name: str, rows: Any, *, index: int = 0, key: str | Sequence[str] = ()) -> None:
        """Replace the rows of a table that have the same key, and insert the others. Otherwise as `append`.

        Columns that `rows` lack stay as they are in replaced rows, and are null in new ones.
        """
        self._edit_rows(name, index, "upsert", rows, key)

    def delete_rows(self, name: str, rows: Any = None, *, index: int = 0, where: str | None = None) -> None:
        """Delete rows of a table: those that have the same values as one of `rows` in their columns (such as the key), or those
        for which the SQL condition `where` is true."""
        if (rows is None) == (where is None):
            raise InputError(
                "Pass either rows, a table with the keys of the rows to delete, or where, an SQL condition."
            )
        self._edit_rows(name, index, "delete", rows, (), where)

    def _changed_already(self, name: str, index: int) -> InputError:
        return InputError(
            f"This draft already changes {component_label(name, index)!r}, and rows are edited alone. Use another draft.",
            component=name,
        )

    def _edit_rows(
        self, name: str, index: int, action: RowAction, rows: Any, key: str | Sequence[str], where: str | None = None
    ) -> None:
        spool = self._entered
        name = component_name(name)
        change = self._change
        is_gone = change.everything or change.partitions or name in change.removed or name in change.replaced
        if is_gone or (name, index) in change.put or (name, index) in change.edits:
            raise self._changed_already(name, index)
        staged = None
        if where is None:
            staged = stage(self._captured, spool, rows, name=name, key=several(key) if is_table(rows) else ())
        self._change.edits[name, index] = RowEdit(action, staged, where, several(key))

    def remove(self, name: str, *, index: int | None = None) -> None:
        """Remove a component: one index, or all of them. The commit raises `NotFound` if it does not exist."""
        name = component_name(name)
        if any(edited == name for edited, _ in self._change.edits):
            raise self._changed_already(name, 0)
        self._change.remove(name, index)

    # --- implemented by the embedded and the remote draft -------------------------------------------------------------

    @property
    @abstractmethod
    def _scratch(self) -> Path: ...

    @abstractmethod
    def _head(self, branch: str, fallback: str | None) -> Head | None: ...

    @abstractmethod
    def _previous(self, name: str, index: int) -> ComponentSchema | None:
        """The captured schema of a component in the previous version."""

    @abstractmethod
    def _stored(self, version: Version, component: ComponentRecord) -> Staged:
        """The content of a component of a version, to be committed again without its bytes."""

    @abstractmethod
    def _known(self, path: Path) -> Spooled | None:
        """The content of a path whose stat is unchanged, None if it must be read."""

    @abstractmethod
    def _captured(self, spool: Spool, spooled: Spooled, format: str) -> ComponentSchema | None: ...

    @abstractmethod
    def _commit(self, spool: Spool, options: CommitOptions) -> CommitResult: ...

    # --- the result ---------------------------------------------------------------------------------------------------

    @property
    def result(self) -> CommitResult:
        """The result of the commit. Raises `InputError` before it."""
        if self._result is None:
            raise InputError("The draft was not committed: its with block did not end, or ended with an exception.")
        return self._result

    @property
    @abstractmethod
    def version(self) -> Version:
        """The head of the branch after the commit: a new version, or the previous one if nothing changed."""
