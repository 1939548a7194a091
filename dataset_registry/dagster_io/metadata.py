"""What the Dagster UI shows of a version: on each materialization, and on the asset's definition."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.model.partitions import belongs
from dataset_registry.model.records import CommitResult, InputVersion
from dataset_registry.model.schema import Column, ComponentSchema, SchemaDiff, TableSchema

DATASET_KEY = "registry/dataset"
REF_KEY = "registry/ref"


def dataset_name(key: dg.AssetKey, metadata: Any = None) -> str:
    """The dataset of an asset: its metadata `registry/dataset`, else its key joined by slashes."""
    named = (metadata or {}).get(DATASET_KEY)
    return str(getattr(named, "value", named)) if named else "/".join(key.path)


def describe_assets(assets: Sequence[Any], *, registry: DatasetRegistryResource, prefix: str = "") -> list[Any]:
    """The same assets with the registry's `dagster/uri` and `dagster/table_name` on their definitions, for the sidebar.

    `prefix` is the IO manager's, when it has one.
    """
    given = registry.store or registry.path or ""
    location = (given.get_value() if isinstance(given, dg.EnvVar) else given) or ""

    def describe(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = prefix + dataset_name(spec.key, spec.metadata)
        return spec.merge_attributes(
            metadata={
                "dagster/table_name": name,
                "dagster/uri": f"{location.rstrip('/')}#{name}",
                "dagster/storage_kind": "dataset_registry",
            }
        )

    return list(dg.map_asset_specs(describe, assets))


def materialization(
    result: CommitResult,
    *,
    branch: str,
    inputs: Sequence[InputVersion],
    schema_changes: dict[str, SchemaDiff],
    partitions: Sequence[str],
) -> dict[str, Any]:
    """The metadata of one materialization. The plain `dagster/…` keys are those that the UI knows."""
    version = result.version
    tables = [table for schema in result.schemas.values() for table in schema.tables]
    rows = [table.rows for table in tables if table.rows is not None]
    found: dict[str, Any] = {
        "registry/version": dg.MetadataValue.md(_label(result, branch)),
        "registry/version_number": version.number,
        "registry/branch": branch,
        "registry/parents": ", ".join(f"v{number}" for number in version.parents) or "none: the first version",
        "registry/unchanged": result.unchanged,
        "registry/new_bytes": result.new_bytes,
        "registry/dedup_ratio": round(1 - result.new_bytes / result.total_bytes, 4) if result.total_bytes else 0.0,
        "registry/schema_changes": _changes(schema_changes),
        "dagster/size_bytes": result.total_bytes,
    }
    if rows and not partitions:
        found["dagster/row_count"] = sum(rows)
    if (columns := _columns(list(result.schemas.values()))) is not None:
        found["dagster/column_schema"] = columns
    if inputs:
        found["registry/inputs"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "input": f"{read.dataset}@v{read.version}",
                        "digest": (read.digest or "")[:12],
                        "ref": read.ref if read.fallback is None else f"{read.ref} (read from {read.fallback})",
                        "partitions": ", ".join(read.components[:5]) + (" …" if len(read.components) > 5 else ""),
                    }
                )
                for read in inputs
            ]
        )
    return found


def partition_rows(result: CommitResult, keys: Sequence[str]) -> dict[str, int]:
    """How many rows each partition of a materialization has, where that is known."""
    facts = {(c.name, c.index): c.metadata for c in result.written}
    found: dict[str, int] = {}
    for key in keys:
        counts = [
            schema.rows
            for component, schema in result.schemas.items()
            if belongs(component[0], facts.get(component, {}), key) and schema.rows is not None
        ]
        if counts:
            found[key] = sum(counts)
    return found


def _label(result: CommitResult, branch: str) -> str:
    version = result.version
    state = " (unchanged)" if result.unchanged else ""
    return f"**v{version.number}** · `{(version.digest or '')[:8]}` on `{branch}`{state}"


def _changes(found: dict[str, SchemaDiff]) -> str:
    lines = [
        f"{label} {change}" if len(found) > 1 else str(change) for label, d in found.items() for change in d.changes
    ]
    return "; ".join(lines[:20]) or "none"


def _columns(schemas: Sequence[ComponentSchema]) -> dg.TableSchema | None:
    tables = [table for schema in schemas for table in schema.tables]
    different = list(dict.fromkeys(table.columns for table in tables))
    if len(different) != 1:  # several tables: no one schema speaks for them all
        return None
    return dg.TableSchema(columns=[_column(column, tables[0]) for column in different[0]])


def _column(column: Column, table: TableSchema) -> dg.TableColumn:
    facts = table.statistics.get(column.name)
    ranged = facts is not None and facts.min is not None and column.type != "bool"
    known = [f"from {facts.min} to {facts.max}"] if facts is not None and ranged else []
    if facts is not None and facts.null_count:
        known.append(f"{facts.null_count} nulls")
    return dg.TableColumn(
        column.name,
        column.type,
        description="; ".join(known)[:200] or None,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )
