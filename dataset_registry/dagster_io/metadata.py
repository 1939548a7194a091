"""Metadata for the Dagster UI: of each materialization, and of the definitions of assets."""

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args

import dagster as dg
from dagster._core.definitions.metadata import normalize_metadata

from dataset_registry.dagster_io.branches import TRACKED_VERSION, VERSION_NUMBER
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import InputError, InvalidName
from dataset_registry.model.names import dataset_name as checked_name
from dataset_registry.model.pages import comparison_path, dataset_path, path_of
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.model.records import CommitResult, InputVersion, VersionRecord
from dataset_registry.model.schema import Column, ComponentSchema, SchemaDiff, TableSchema
from dataset_registry.model.texts import as_code, in_markdown
from dataset_registry.version import Version

DATASET_KEY = "registry/dataset"
REF_KEY = "registry/ref"
ROW_KEY = "registry/key"
READ_KEY = "registry/read"
MODE_KEY = "registry/write_mode"
MEMOIZE_KEY = "registry/memoize"
COLUMNS_KEY = "columns"
SQL_KEY = "registry/sql"
WriteMode = Literal["overwrite", "append", "upsert"]
WRITE_MODES: tuple[WriteMode, ...] = get_args(WriteMode)

VERSION = "registry/version"
SIDE_RUN = "registry/side_run"
REUSED = "registry/reused"
TABLE_NAME = "dagster/table_name"
_KEYS = (DATASET_KEY, REF_KEY, ROW_KEY, READ_KEY, MODE_KEY, MEMOIZE_KEY, SQL_KEY, "registry/allow_missing_partitions")
"""Keys of metadata that users give to assets, inputs and outputs."""


def value(metadata: Mapping[str, Any] | None, key: str) -> Any:
    """The value of a metadata key, unwrapped from Dagster types."""
    found = (metadata or {}).get(key)
    return getattr(found, "value", found)


def check_keys(metadata: Mapping[str, Any] | None, what: str) -> None:
    """Raise `InputError` for an unknown key in the `registry/` namespace."""
    for key in metadata or {}:
        plain = str(key).lower().replace("-", "_").removeprefix("dataset_")
        near = difflib.get_close_matches(plain, _KEYS, 1, 0.8)
        is_ours = plain.startswith("registry/")
        if key not in _KEYS and (is_ours or (near and "/" in str(key))):
            raise InputError(
                f"{what} has the unknown metadata key {key!r}. "
                + (f"Did you mean {near[0]!r}? " if near else "")
                + f"The keys are: {', '.join(_KEYS)}."
            )


def write_mode(metadata: Mapping[str, Any] | None, what: str) -> WriteMode:
    """How an output is written. Raises `InputError` for an unknown mode."""
    found = value(metadata, MODE_KEY)
    for mode in WRITE_MODES:
        if found == mode:
            return mode
    if found is None:
        return "overwrite"
    raise InputError(f"{what} has the unknown {MODE_KEY} {found!r}. Use one of: {', '.join(WRITE_MODES)}.")


def dataset_name(key: dg.AssetKey, metadata: Any = None) -> str:
    """The dataset of an asset: its metadata `registry/dataset`, else the parts of its key joined by slashes.

    A slash inside a part is written `=2F`, so that no two keys mean one dataset.
    """
    named = value(metadata, DATASET_KEY)
    return str(named) if named else "/".join(map(_escaped, key.path))


def _escaped(part: str) -> str:
    """A part of an asset key with slashes escaped. Existing escapes are escaped, too, so that this is reversible."""
    return re.sub("=(?=2F|3D)", "=3D", part).replace("/", "=2F")


def assets_of(graph: Any, prefix: str = "") -> dict[str, dg.AssetKey]:
    """The assets of an asset graph by their dataset."""
    return {prefix + dataset_name(key, graph.get(key).metadata): key for key in graph.get_all_asset_keys()}


def check_names(assets: Mapping[dg.AssetKey, Mapping[str, Any]], prefix: str = "") -> None:
    """Raise `InputError` if two assets (metadata by key) share a dataset, `InvalidName` for a key that is no valid name."""
    owners: dict[str, dg.AssetKey] = {}
    for key, metadata in sorted(assets.items(), key=lambda asset: asset[0].to_user_string()):
        try:
            name = checked_name(prefix + dataset_name(key, metadata))
        except InvalidName as error:
            raise InvalidName(
                f"The asset {key.to_user_string()!r} cannot be a dataset: {error} Or set its dataset with the metadata "
                f"{DATASET_KEY}.",
                **error.fields,
            ) from error
        if (other := owners.setdefault(name, key)) != key:
            raise InputError(
                f"The assets {other.to_user_string()!r} and {key.to_user_string()!r} are both the dataset {name!r}. "
                f"Give one of them another dataset with the metadata {DATASET_KEY}.",
                dataset=name,
            )


def addresses(name: str, registry: DatasetRegistryResource) -> dict[str, Any]:
    """The location of a dataset under the metadata keys of the Dagster UI."""
    return {
        TABLE_NAME: name,
        "dagster/uri": f"{registry.location.rstrip('/')}#{name}",
    }


def show_read(context: dg.InputContext, version: Version, *, ref: str, fallback: str | None) -> None:
    """Show the version that was read on the run's LOADED_INPUT event.

    (`add_input_metadata` would also record an observation of the asset, and fails for several partitions.)
    """
    facts: dict[str, Any] = {
        VERSION: str(version),
        "registry/version_number": version.number,
        "registry/digest": version.digest or "",
        "registry/ref": _ref(ref, fallback),
    }
    known = getattr(context, "_user_generated_metadata", None)
    if known is not None:
        context._user_generated_metadata = {**known, **normalize_metadata(facts)}


def _ref(ref: str | None, fallback: str | None) -> str | None:
    return ref if fallback is None else f"{ref} (read from {fallback})"


def materialization(
    result: CommitResult,
    *,
    branch: str,
    inputs: Sequence[InputVersion],
    schema_changes: dict[str, SchemaDiff],
    partitions: Sequence[str],
    pages: str | None = None,
) -> dict[str, Any]:
    """The metadata of one materialization. The plain `dagster/…` keys are those that the UI knows."""
    version = result.version
    found: dict[str, Any] = {
        VERSION: dg.MetadataValue.md(label(version, branch, unchanged=result.unchanged, pages=pages)),
        VERSION_NUMBER: version.number,
        "registry/branch": branch,
        "registry/new_bytes": result.new_bytes,
        "dagster/size_bytes": result.total_bytes,
    }
    if changes := _changes(schema_changes):
        found["registry/schema_changes"] = changes
    found |= _of_tables(
        list(result.schemas.values()), "dagster/partition_row_count" if partitions else "dagster/row_count"
    )
    if inputs:
        found["registry/inputs"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "input": f"{read.dataset}@v{read.version}",
                        "digest": (read.digest or "")[:12],
                        "ref": _ref(read.ref, read.fallback),
                        "partitions": ", ".join(read.components),
                    }
                )
                for read in inputs
            ]
        )
    return found


def of_version(version: Version, branch: str, pages: str | None = None) -> dict[str, Any]:
    """The metadata of a version that is reported without a run."""
    tables = list(version.schema.tables().values())
    return {
        VERSION: dg.MetadataValue.md(label(version, branch, pages=pages)),
        VERSION_NUMBER: version.number,
        "registry/branch": branch,
        "dagster/size_bytes": sum(component.size for component in version.components),
        **_of_tables([ComponentSchema("parquet", (table,)) for table in tables], "dagster/row_count"),
    }


def of_side_run(branch: str, tracked: str, head: Version | None, pages: str | None = None) -> dict[str, Any]:
    """The metadata that a run on another branch than the tracked one shows first."""
    text = f"**on branch {as_code(branch)}, not {as_code(tracked)}**"
    if pages is not None:
        text += f" · [changes]({pages}{path_of(f'/branches/{branch}')})"
        text += f" · [review]({pages}{path_of('/reviews/new', branch=branch, target=tracked)})"
    return {
        SIDE_RUN: dg.MetadataValue.md(text),
        TRACKED_VERSION: head.number if head else 0,
    }


def per_partition(result: CommitResult, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The metadata of each partition of a materialization: rows, bytes, columns with their statistics."""
    written = {(c.name, c.index): c for c in result.written}
    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        own = [c for c in written.values() if belongs(c.name, c.metadata, partition_key(key))]
        schemas = [result.schemas[c.name, c.index] for c in own if (c.name, c.index) in result.schemas]
        found[key] = {
            "dagster/size_bytes": sum(c.size for c in own),
            **_of_tables(schemas, "dagster/partition_row_count"),
        }
    return found


def _of_tables(schemas: Sequence[ComponentSchema], rows_key: str) -> dict[str, Any]:
    """The row count and the columns of tables, if they have the same columns."""
    tables = [table for schema in schemas for table in schema.tables]
    found: dict[str, Any] = {}
    if (rows := _row_count(tables)) is not None:
        found[rows_key] = rows
    if (columns := _columns(tables)) is not None:
        found["dagster/column_schema"] = columns
    return found


def _row_count(tables: Sequence[TableSchema]) -> int | None:
    """The number of rows of tables with the same columns, None for others."""
    if len({frozenset(column.name for column in table.columns) for table in tables}) != 1:
        return None
    known = [table.rows for table in tables if table.rows is not None]
    return sum(known) if known else None


def label(version: Version | VersionRecord, branch: str, *, unchanged: bool = False, pages: str | None = None) -> str:
    """A version in one line: its number, digest and branch, its parents, and the difference: links to `pages` (the address of a
    server), else the command."""
    name, number = version.dataset, f"v{version.number}"
    shown = f"**{number}**" if pages is None else f"**[{number}]({pages}{dataset_path(name, number)})**"
    label = f"{shown} · `{(version.digest or '')[:8]}` on {as_code(branch)}"
    if unchanged:
        return f"{label} (unchanged)"
    lineage = "" if pages is None else f" · [lineage]({pages}{dataset_path(name, number, 'lineage')})"
    if not version.parents:
        return f"{label} · the first version{lineage}"
    parents = ", ".join(f"v{parent}" for parent in version.parents)
    diff = as_code(f"dataset-registry diff {name} v{version.parents[0]} {number}")
    if pages is not None:
        diff = f"[diff]({pages}{comparison_path(name, f'v{version.parents[0]}', number)})"
    return f"{label} · from {parents} · {diff}{lineage}"


def _changes(found: dict[str, SchemaDiff]) -> str:
    lines = [
        f"{label} {change}" if len(found) > 1 else str(change) for label, d in found.items() for change in d.changes
    ]
    return "; ".join(lines)


def _columns(tables: Sequence[TableSchema]) -> dg.TableSchema | None:
    different = list(dict.fromkeys(table.columns for table in tables))
    if len(different) != 1:  # several tables with different schemas
        return None
    return dg.TableSchema(columns=[_column(column, tables) for column in different[0]])


def _column(column: Column, tables: Sequence[TableSchema]) -> dg.TableColumn:
    facts = [table.statistics.get(column.name) for table in tables]
    known: list[str] = []
    bounds = [(f.min, f.max) for f in facts if f is not None and f.min is not None]
    with suppress(TypeError):
        if bounds and column.type != "bool" and len(bounds) == len([t for t in tables if t.rows]):
            least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
            known.append(f"from {in_markdown(least)} to {in_markdown(most)}")
    nulls: list[int] = [f.null_count for f in facts if f is not None and f.null_count is not None]
    if len(nulls) == len(tables) and sum(nulls) > 0:
        known.append(f"{sum(nulls)} nulls")
    return dg.TableColumn(
        column.name,
        column.type,
        description="; ".join(known) or None,  # the UI renders it as Markdown
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )
