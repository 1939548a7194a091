"""Datasets, versions and drafts of a catalog and a store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_registry.access import Access
from dataset_registry.content.capture import captured, trusted
from dataset_registry.content.source import CatalogContents
from dataset_registry.content.stage import Staged
from dataset_registry.dataset import Dataset, Draft
from dataset_registry.model.checks import CheckResult, NewCheck, Taint
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.diff import Diff, RowSummary
from dataset_registry.model.merge_plans import MergeKind, MergeOptions, MergePlan
from dataset_registry.model.names import MAIN, several
from dataset_registry.model.records import (
    CommitResult,
    ComponentRecord,
    DatasetRecord,
    Head,
    NewDataset,
    PointerRecord,
    Production,
    VersionRecord,
)
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations import commit as commits
from dataset_registry.operations import commit_base, datasets, diff, expire, gates, history, merge, refs
from dataset_registry.store import Spool, Spooled
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow


class EmbeddedVersion(Version):
    """A version in a catalog."""

    def __init__(self, access: Access, record: VersionRecord, contents: CatalogContents | None = None) -> None:
        super().__init__(record, contents or CatalogContents(access))
        self.access = access

    @property
    def productions(self) -> list[Production]:
        return history.productions_of(self.access, self.record)

    @property
    def consumers(self) -> list[tuple[str, int]]:
        return history.consumers(self.access, self.record)

    @property
    def checks(self) -> list[CheckResult]:
        return gates.checks(self.access, self.record)

    @property
    def taints(self) -> list[Taint]:
        return gates.taints_of(self.access, self.record)

    def _record_check(self, check: NewCheck) -> CheckResult:
        return gates.record_check(self.access, self.record, check)

    def note_read(self, run_id: str) -> None:
        expire.note_read(self.access, self.record, run_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddedVersion) and (other.id, other.access) == (self.id, self.access)

    def __hash__(self) -> int:
        return hash(self.id)


class EmbeddedDataset(Dataset):
    """A dataset in a catalog."""

    def __init__(self, access: Access, record: DatasetRecord) -> None:
        super().__init__(record)
        self.access = access

    def draft(self, branch: str = MAIN, **options: Any) -> "EmbeddedDraft":
        return EmbeddedDraft(self.access, self.record, branch, **options)

    # --- looking ---------------------------------------------------------------------------------------------------

    def version(self, ref: str = MAIN) -> EmbeddedVersion:
        return EmbeddedVersion(self.access, history.version(self.access, self.record, ref))

    def log(self, ref: str = MAIN, *, limit: int | None = None) -> list[Version]:
        return self._versions(history.log(self.access, self.record, ref, limit))

    def tree(self) -> list[Version]:
        return self._versions(history.tree(self.access, self.record))

    def children(self, ref: str) -> list[Version]:
        return self._versions(history.children(self.access, self.record, ref))

    def memoized(self, memo_digest: str, *, limit: int = 20) -> list[Production]:
        return history.memoized(self.access, self.record, memo_digest, limit)

    def merge_bases(self, left: str, right: str) -> list[Version]:
        return self._versions(history.merge_bases(self.access, self.record, left, right))

    def _versions(self, records: Sequence[VersionRecord]) -> list[Version]:
        contents = CatalogContents(self.access)
        return [EmbeddedVersion(self.access, record, contents) for record in records]

    def diff(self, before: str, after: str) -> Diff:
        return diff.diff(self.access, self.record, before, after)

    def diff_summary(self, before: str, after: str, component: str | None = None) -> dict[str, RowSummary]:
        return diff.summary(self.access, self.record, before, after, component)

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
        columns = several(key)
        return diff.rows(
            self.access, self.record, before, after, component, index=index, sheet=sheet, key=columns, limit=limit
        )

    # --- merging ---------------------------------------------------------------------------------------------------

    def _plan_merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> MergePlan:
        return merge.plan(self.access, self.record, how, ref, branch, options)

    def _merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> EmbeddedVersion:
        _, head = merge.merge(self.access, self.record, how, ref, branch, options)
        return EmbeddedVersion(self.access, head)

    def _conflicts(
        self, how: MergeKind, ref: str, branch: str, component: str, options: MergeOptions
    ) -> "pyarrow.Table":
        return merge.conflicts(self.access, self.record, how, ref, branch, component, options)

    # --- branches and tags -----------------------------------------------------------------------------------------

    def create_branch(self, name: str, ref: str = MAIN) -> PointerRecord:
        return refs.create(self.access, self.record, name, ref, is_tag=False)

    def create_tag(self, name: str, ref: str = MAIN) -> PointerRecord:
        return refs.create(self.access, self.record, name, ref, is_tag=True)

    def move_branch(self, name: str, ref: str, *, expect: str | None = None) -> PointerRecord:
        return refs.move(self.access, self.record, name, ref, expect=expect)

    def delete_branch(self, name: str) -> None:
        refs.delete(self.access, self.record, name, is_tag=False)

    def delete_tag(self, name: str) -> None:
        refs.delete(self.access, self.record, name, is_tag=True)

    def branch(self, name: str) -> PointerRecord:
        return refs.get(self.access, self.record, name)

    def branches(self) -> list[PointerRecord]:
        return refs.list_all(self.access, self.record, tags=False)

    def tags(self) -> list[PointerRecord]:
        return refs.list_all(self.access, self.record, tags=True)

    # --- the dataset itself ----------------------------------------------------------------------------------------

    def update(self, *, description: str) -> None:
        self.record = datasets.update(self.access, self.record, name=None, description=description)

    def rename(self, name: str) -> None:
        self.record = datasets.update(self.access, self.record, name=name, description=None)

    def absolve(self, ref: str, because: str) -> list[Taint]:
        return gates.absolve(self.access, self.record, ref, because)

    def delete_version(self, ref: str) -> None:
        datasets.delete_version(self.access, self.record, ref)

    def delete(self) -> int:
        return datasets.delete(self.access, self.record)


class EmbeddedDraft(Draft):
    """A draft that is committed to a catalog and a store."""

    def __init__(self, access: Access, dataset: DatasetRecord | NewDataset, branch: str, **options: Any) -> None:
        self.access = access
        super().__init__(dataset, branch, **options)

    # --- what a draft needs of its registry; over REST these are requests ---------------------------------------------

    @property
    def _scratch(self) -> Path:
        return self.access.store.scratch

    def _head(self, branch: str, fallback: str | None) -> Head | None:
        return commit_base.head(self.access, self._dataset, branch, fallback)

    def _previous(self, name: str, index: int) -> ComponentSchema | None:
        found = commit_base.schemas_before(self.access, self._dataset, self._options.base, [name])
        return found.get((name, index))

    def _stored(self, version: Version, component: ComponentRecord) -> Staged:
        return commit_base.stored_content(self.access, version.record, component)

    def _known(self, path: Path) -> Spooled | None:
        assert self._spool is not None, "entered"
        return trusted(self.access, self._spool, path)

    def _captured(self, spool: Spool, spooled: Spooled, format: str) -> ComponentSchema | None:
        return captured(self.access, spool, spooled, format)

    def _commit(self, spool: Spool, options: CommitOptions) -> CommitResult:
        return commits.commit(self.access, spool, self._dataset, self._change, options)

    # --- what it did --------------------------------------------------------------------------------------------------

    @property
    def version(self) -> EmbeddedVersion:
        return EmbeddedVersion(self.access, self.result.version)
