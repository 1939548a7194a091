"""Asset checks to use: the schema against the version before, rows, freshness and statistics against history, keys, references.

Each reads the version that the run's branch has, and says in its metadata which version that was, what was expected and what was
found, with a sample of the rows at fault.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import dagster as dg

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import InputError
from dataset_registry.model.compatibility import Compatibility, checked_policy, incompatibilities
from dataset_registry.model.names import several
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow as pa

Assets = Sequence[Any]
"""Assets, specs or keys to check."""

SAMPLE = 10
"""Number of rows at fault that a result shows."""

Judge = Callable[["Judged"], dg.AssetCheckResult]


class Judged:
    """A version to check: on the branch of the run, limited to the partition of a partitioned check."""

    def __init__(
        self,
        resource: DatasetRegistryResource,
        branch: str,
        name: str,
        partition: str | None,
        severity: dg.AssetCheckSeverity,
    ) -> None:
        self.resource, self.branch, self.partition, self.severity = resource, branch, partition, severity
        self.dataset = resource.registry.dataset(name)
        self.version = self.at(name, branch)

    def at(self, name: str, branch: str) -> Version:
        """The version that a run on this branch reads of a dataset."""
        return self.resource.version_on(self.resource.registry.dataset(name), branch)[0]

    def tables(self, version: Version | None = None) -> dict[str, Any]:
        """The captured tables of a version by label, of the partition if there is one."""
        found = version or self.version
        if self.partition is None:
            return dict(found.schema.tables())
        key = partition_key(self.partition)
        own = {c.name for c in found.components if belongs(c.name, c.metadata, key)}
        return {label: table for label, table in found.schema.tables().items() if label.partition("[")[0] in own}

    def columns(self, columns: Sequence[str]) -> "pa.Table":
        """Some columns of all its rows."""
        names = sorted({label.partition("[")[0] for label in self.tables()})
        return self.version.to_arrow(names, columns=list(columns))

    def history(self, most: int) -> list[Version]:
        """The versions before it, newest first."""
        return self.dataset.log(f"v{self.version.number}", limit=most + 1)[1:]

    def result(self, passed: bool, expected: Any, got: Any, sample: "pa.Table | None" = None) -> dg.AssetCheckResult:
        """A result with its evidence."""
        facts: dict[str, Any] = {metadata.VERSION: str(self.version), "expected": expected, "got": got}
        if sample is not None and sample.num_rows:
            facts["rows"] = dg.MetadataValue.md(_as_markdown(sample.slice(0, SAMPLE)))
        return dg.AssetCheckResult(passed=passed, metadata=facts, severity=self.severity)


def build_schema_checks(
    assets: Assets, *, policy: Compatibility = "backward", blocking: bool = True, **options: Any
) -> list[dg.AssetChecksDefinition]:
    """Checks that the columns of tables are compatible with those of the version before on the branch.

    The policies are those of schema registries: `backward` (code for the new columns reads the old data), `forward` (code for the
    old columns reads the new data), `full` (both), `exact`. `options` are those of all checks here: `prefix` (of the IO manager),
    `resource_key`, `partitions_def`, `severity`. Raises `InputError` for an unknown policy.
    """
    checked = checked_policy(policy)

    def judge(judged: Judged) -> dg.AssetCheckResult:
        parents = judged.version.parents
        before = judged.tables(judged.dataset.version(f"v{parents[0]}")) if parents else {}
        found = [
            f"{label}: {what}" if len(before) > 1 else what
            for label, table in judged.tables().items()
            if label in before
            for what in incompatibilities(before[label].columns, table.columns, checked)
        ]
        return judged.result(not found, f"{checked} compatible", "; ".join(found) or f"{checked} compatible")

    return _checks(assets, f"schema_is_{checked}_compatible", judge, blocking, options)


def build_row_count_checks(
    assets: Assets,
    *,
    at_least: int = 1,
    tolerance: float = 0.5,
    versions: int = 10,
    blocking: bool = False,
    **options: Any,
) -> list[dg.AssetChecksDefinition]:
    """Checks that the number of rows is at least `at_least`, and differs from the median of the last `versions` versions by no
    more than the share `tolerance`. Raises `InputError` for a negative share."""
    if tolerance < 0 or versions < 1:
        raise InputError("tolerance is 0 or more, and versions 1 or more.", tolerance=tolerance, versions=versions)

    def judge(judged: Judged) -> dg.AssetCheckResult:
        got = _rows(judged.tables())
        known = [_rows(judged.tables(version)) for version in judged.history(versions)]
        usual = median(known) if known else got
        least, most = max(at_least, usual * (1 - tolerance)), usual * (1 + tolerance)
        passed = got >= least and (got <= most or not known)
        return judged.result(
            passed, f"{least:,.0f} to {most:,.0f} rows" if known else f"{at_least:,} rows or more", got
        )

    return _checks(assets, "row_count_is_usual", judge, blocking, options)


def build_freshness_checks(
    assets: Assets,
    *,
    maximum_age: timedelta | None = None,
    versions: int = 10,
    blocking: bool = False,
    **options: Any,
) -> list[dg.AssetChecksDefinition]:
    """Checks that the last run that produced the version, also if it left the content unchanged, is not older than `maximum_age`.

    Without one, it is three times the median interval of the productions of the last `versions` versions. Raises `InputError` for
    an age that is negative.
    """
    if versions < 1 or (maximum_age is not None and maximum_age < timedelta(0)):
        raise InputError("maximum_age is not negative, and versions 1 or more.", versions=versions)

    def judge(judged: Judged) -> dg.AssetCheckResult:
        known = [judged.version, *(judged.history(versions) if maximum_age is None else ())]
        moments = sorted(made.created_at for version in known for made in version.productions)
        newest = moments[-1] if moments else judged.version.created_at
        intervals = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
        most = maximum_age or (timedelta(seconds=_INTERVALS * median(intervals)) if intervals else None)
        age = _now() - newest
        expected = "any age: it was produced once" if most is None else f"not older than {_duration(most)}"
        return judged.result(most is None or age <= most, expected, f"{_duration(age)} old")

    return _checks(assets, "is_fresh", judge, blocking, options)


_INTERVALS = 3


def _now() -> datetime:
    return datetime.now(UTC)


def _duration(span: timedelta) -> str:
    return str(timedelta(seconds=round(span.total_seconds())))


def build_drift_checks(
    assets: Assets,
    *,
    columns: str | Sequence[str] = (),
    tolerance: float = 0.5,
    nulls: float = 0.1,
    versions: int = 10,
    blocking: bool = False,
    **options: Any,
) -> list[dg.AssetChecksDefinition]:
    """Checks that the statistics of columns have not drifted from those of the last `versions` versions.

    The share of nulls may differ from its median by `nulls`. The smallest and the largest number may leave the range that the
    column had by the share `tolerance` of its width. Without `columns`, all are checked. Statistics are those that were captured:
    no data is read. Raises `InputError` for negative numbers.
    """
    if tolerance < 0 or nulls < 0 or versions < 1:
        raise InputError("tolerance and nulls are 0 or more, and versions 1 or more.", tolerance=tolerance, nulls=nulls)
    given = several(columns) if columns else []

    def judge(judged: Judged) -> dg.AssetCheckResult:
        now = _facts(judged.tables())
        if missing := [name for name in given if name not in now]:
            raise InputError(f"{judged.version} has no column {missing[0]!r}.", column=missing[0])
        before = [_facts(judged.tables(version)) for version in judged.history(versions)]
        found = [
            f"{name}: {what}"
            for name in given or now
            for what in now[name].drift([facts[name] for facts in before if name in facts], tolerance, nulls)
        ]
        return judged.result(not found, f"as in the last {len(before)} versions", "; ".join(found) or "no drift")

    return _checks(assets, "statistics_are_usual", judge, blocking, options)


@dataclass(frozen=True, slots=True)
class _ColumnFacts:
    """The share of nulls of a column, and its range where it is a number; None for what is not known."""

    nulls: float | None
    low: float | None
    high: float | None

    def drift(self, before: "Sequence[_ColumnFacts]", tolerance: float, nulls: float) -> Iterator[str]:
        """How it differs from what it was."""
        shares = [facts.nulls for facts in before if facts.nulls is not None]
        if shares and self.nulls is not None and abs(self.nulls - median(shares)) > nulls:
            yield f"{self.nulls:.1%} nulls, usually {median(shares):.1%}"
        lows = [facts.low for facts in before if facts.low is not None]
        highs = [facts.high for facts in before if facts.high is not None]
        if lows and highs and self.low is not None and self.high is not None:
            width = max(highs) - min(lows) or max(abs(max(highs)), abs(min(lows)))
            margin = tolerance * width
            if self.low < min(lows) - margin or self.high > max(highs) + margin:
                yield f"{self.low:g} to {self.high:g}, usually {min(lows):g} to {max(highs):g}"


def _facts(tables: Mapping[str, Any]) -> dict[str, _ColumnFacts]:
    """What is captured of the columns of tables."""
    found = {}
    for name in {column.name: None for table in tables.values() for column in table.columns}:
        known = [(table.rows, table.statistics[name]) for table in tables.values() if name in table.statistics]
        rows = sum(count or 0 for count, _ in known)
        counts = [facts.null_count for _, facts in known]
        bounds = [(facts.min, facts.max) for _, facts in known if facts.min is not None and facts.max is not None]
        is_number = bounds and all(
            isinstance(b, int | float) and not isinstance(b, bool) for pair in bounds for b in pair
        )
        found[name] = _ColumnFacts(
            sum(count for count in counts if count is not None) / rows if rows and None not in counts else None,
            min(low for low, _ in bounds) if is_number else None,
            max(high for _, high in bounds) if is_number else None,
        )
    return found


def build_key_checks(
    assets: Assets, *, columns: str | Sequence[str] = (), blocking: bool = True, **options: Any
) -> list[dg.AssetChecksDefinition]:
    """Checks that no two rows have the same key and that no key has a null: in `columns`, or in the key of the table."""
    import pyarrow.compute as pc

    given = several(columns) if columns else []

    def judge(judged: Judged) -> dg.AssetCheckResult:
        declared = next((table.key for table in judged.tables().values() if table.key), ())
        key = given or list(declared)
        if not key:
            raise InputError(f"{judged.version} has no key. Pass columns=…, or set {metadata.ROW_KEY} on the asset.")
        table = judged.columns(key)
        counts = table.group_by(key).aggregate([([], "count_all")])
        twice = counts.filter(pc.greater(counts["count_all"], 1))
        empty = sum(table[name].null_count for name in key)
        got = f"{twice.num_rows:,} keys with several rows, {empty:,} nulls"
        return judged.result(not twice.num_rows and not empty, f"unique {', '.join(key)}", got, twice)

    return _checks(assets, "key_is_unique", judge, blocking, options)


def build_reference_checks(
    assets: Assets,
    *,
    columns: str | Sequence[str],
    to: str,
    to_columns: str | Sequence[str] = (),
    blocking: bool = True,
    **options: Any,
) -> list[dg.AssetChecksDefinition]:
    """Checks that the values of `columns` are in a dataset `to` (its name, or an address such as `raw/airports@v3`), in
    `to_columns` (the same names by default). Rows with a null are not compared."""
    mine, theirs = several(columns), several(to_columns) if to_columns else several(columns)
    if len(mine) != len(theirs):
        raise InputError(f"{len(mine)} columns cannot refer to {len(theirs)}.", columns=mine, to_columns=theirs)

    def judge(judged: Judged) -> dg.AssetCheckResult:
        target = judged.resource.registry.version(to) if "@" in to else judged.at(to, judged.branch)
        known = target.to_arrow(columns=theirs).select(theirs).rename_columns(mine).group_by(mine).aggregate([])
        used = judged.columns(mine).select(mine).drop_null()
        known = known.cast(used.schema)
        missing = used.group_by(mine).aggregate([([], "count_all")]).join(known, keys=mine, join_type="left anti")
        expected = f"{', '.join(mine)} in {target}"
        return judged.result(not missing.num_rows, expected, f"{missing.num_rows:,} values are not there", missing)

    return _checks(
        assets, f"{'_'.join(mine)}_refers_to_{to.rpartition('/')[2].replace('@', '_')}", judge, blocking, options
    )


def _rows(tables: Mapping[str, Any]) -> int:
    return sum(table.rows or 0 for table in tables.values())


def _checks(
    assets: Assets, name: str, judge: Judge, blocking: bool, options: Mapping[str, Any]
) -> list[dg.AssetChecksDefinition]:
    return [_check(spec, name, judge, blocking=blocking, **options) for asset in assets for spec in _specs(asset)]


def _specs(asset: Any) -> list[dg.AssetSpec]:
    if isinstance(asset, dg.AssetsDefinition):
        return list(asset.specs)
    return [asset] if isinstance(asset, dg.AssetSpec) else [dg.AssetSpec(asset)]


def _check(
    spec: dg.AssetSpec,
    name: str,
    judge: Judge,
    *,
    blocking: bool,
    prefix: str = "",
    resource_key: str = "registry",
    partitions_def: Any = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetChecksDefinition:
    dataset = prefix + metadata.dataset_name(spec.key, spec.metadata)
    partitioned = {} if partitions_def is None else {"partitions_def": partitions_def}

    @dg.asset_check(asset=spec.key, name=name, blocking=blocking, required_resource_keys={resource_key}, **partitioned)
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        step = context.op_execution_context
        branch = resource.branch_of(step.run.tags, step.run.run_id)
        partition = step.partition_key if partitions_def is not None else None
        return judge(Judged(resource, branch, dataset, partition, severity))

    return check


def _as_markdown(table: "pa.Table") -> str:
    names = table.column_names
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in table.to_pylist())]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
