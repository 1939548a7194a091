"""Summaries over many datasets and versions, for pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from dataset_registry.model.records import DatasetRecord, VersionRecord


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a version's content in bytes, and its rows: None if no table, or too many to count."""

    bytes: int
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class CheckCounts:
    """How many checks of a version passed and failed, by the newest result of each."""

    passed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset in a list: the head of `main`, or the newest version if it has no `main`; its versions by day."""

    dataset: DatasetRecord
    branch: str | None
    head: VersionRecord | None
    measure: Measure | None
    checks: CheckCounts
    activity: Mapping[date, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of the versions of a dataset, newest first; by the id of a version the run that created it, its checks, and the
    bytes that its first parent does not have.

    `following` is the number before which the next page begins, `total` the number of all versions. `above` are the edges from
    versions of the pages before into this one, as pairs of child and parent.
    """

    versions: Sequence[VersionRecord]
    following: int | None
    total: int
    runs: Mapping[int, str]
    checks: Mapping[int, CheckCounts]
    new_bytes: Mapping[int, int]
    above: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True, slots=True)
class BranchSummary:
    """A branch over all datasets: how many have it, in how many it is at another version than `main`, and when it moved last."""

    name: str
    datasets: int
    ahead: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class BranchPlace:
    """A branch of one dataset: the version it is at, and the version of the target branch, None if that has none."""

    dataset: str
    head: VersionRecord
    target: VersionRecord | None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A search result: what was found (`dataset`, `column`, `version`, `branch`, `tag`, `run`), the dataset and the ref."""

    kind: str
    text: str
    dataset: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A pipeline run: how many versions it wrote, in which datasets, and when it wrote the last one."""

    id: str
    versions: int
    datasets: int
    last_at: datetime


LineagePlace = tuple[str, int]
"""A version in a lineage: dataset and number."""


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A version in a lineage, at a distance from the version that was asked for: negative upstream, positive downstream."""

    place: LineagePlace
    distance: int
    is_there: bool = True


@dataclass(frozen=True, slots=True)
class ColumnReader:
    """A version that was made from a column of another one: the columns that were, None if no column lineage was recorded."""

    dataset: str
    number: int
    columns: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The versions around one: nodes, edges from input to output, and how many more were left out on each side."""

    nodes: Sequence[LineageNode]
    edges: Sequence[tuple[LineagePlace, LineagePlace]]
    more_upstream: int = 0
    more_downstream: int = 0
