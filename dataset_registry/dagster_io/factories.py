"""Assets from queries, and observable assets for datasets that others write."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.extras import require
from dataset_registry.model.names import several
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.version import Version


def build_sql_asset(
    key: Any, sql: str, *, ins: Mapping[str, Any] | None = None, code_version: str | None = None, **options: Any
) -> dg.AssetsDefinition:
    """An asset that is the result of a query in DuckDB's SQL over other assets.

    The tables that the query names are its inputs: `raw.orders` is the asset `raw/orders`, unless `ins` gives another asset for
    it. The code version is a digest of the query, and the lineage of columns is derived from it. `options` are those of
    `dg.asset`. Raises `InputError` for SQL that is not a query.
    """
    require("sqlglot", "lineage", "build_sql_asset()")
    from dataset_registry.tabular.sql_lineage import renamed_tables, tables_of

    own = _key(key)
    given = dict(ins or {})
    tables = tables_of(sql)
    if unknown := sorted(set(given) - set(tables)):
        raise InputError(f"The query does not read {unknown[0]!r}. It reads: {', '.join(tables) or 'no table'}.")
    names = {table: f"input_{i}" for i, table in enumerate(tables)}
    query = renamed_tables(sql, names)

    @dg.asset(  # type: ignore[untyped-decorator]  # options are not known
        key=own,
        ins={
            names[table]: dg.AssetIn(_key(given.get(table, table.split("."))), dagster_type=Version) for table in tables
        },
        code_version=code_version or hashlib.sha256(sql.encode()).hexdigest()[:12],
        description=options.pop("description", None) or f"```sql\n{sql.strip()}\n```",
        kinds=options.pop("kinds", {"duckdb", "sql"}),
        **options,
    )
    def sql_asset(context: dg.AssetExecutionContext, **versions: Version) -> Any:
        import duckdb

        connection = duckdb.connect()
        for name, version in versions.items():
            components = _components(context, name, version)
            if all(c.format == "parquet" for c in version.components if components is None or c.name in components):
                version.to_duckdb(components, connection=connection).create_view(name)
            else:
                connection.register(name, version.to_arrow(components))
        return connection.sql(query)

    made: dg.AssetsDefinition = sql_asset
    return made


def _components(context: dg.AssetExecutionContext, name: str, version: Version) -> list[str] | None:
    """The components of the partitions of an input that a run is about; None for all."""
    own = context.op_execution_context
    if not own.get_step_execution_context().has_asset_partitions_for_input(name):
        return None
    keys = [partition_key(key) for key in own.asset_partition_keys_for_input(name)]
    found = {c.name: None for c in version.components for key in keys if belongs(c.name, c.metadata, key)}
    if not found:
        raise NotFound(f"{version} has none of the partitions {', '.join(keys[:10])}. Materialize them first.")
    return list(found)


def _key(value: Any) -> dg.AssetKey:
    """An asset key; a text is its parts joined by slashes."""
    return dg.AssetKey.from_user_string(value) if isinstance(value, str) else dg.AssetKey.from_coercible(value)


def build_observable_assets(
    datasets: str | Sequence[str], *, prefix: str = "", resource_key: str = "registry", **options: Any
) -> list[Any]:
    """Observable assets for datasets that others write: an observation tells Dagster the content on the tracked branch.

    `datasets` are names, `prefix` is that of the IO manager, `options` are those of `dg.observable_source_asset`.
    """
    return [_observable(name, prefix, resource_key, options) for name in several(datasets)]


def _observable(name: str, prefix: str, resource_key: str, options: Mapping[str, Any]) -> Any:
    key = dg.AssetKey(name.removeprefix(prefix).split("/"))
    facts = {metadata.TABLE_NAME: name, **(options.get("metadata") or {})}

    @dg.observable_source_asset(key=key, required_resource_keys={resource_key}, **{**options, "metadata": facts})
    def observe(context: Any) -> dg.ObserveResult:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        branch = resource.tracked_branch
        version, _ = resource.version_on(resource.registry.dataset(name), branch)
        return dg.ObserveResult(
            data_version=dg.DataVersion(version.digest or ""),
            metadata={
                metadata.VERSION: str(version),
                "registry/version_number": version.number,
                "registry/branch": branch,
                **({} if version.schema.rows is None else {"dagster/row_count": version.schema.rows}),
            },
        )

    return observe


def build_observation_job(assets: Sequence[Any], *, name: str = "registry_observation", **options: Any) -> Any:
    """A job that observes assets (see `build_observable_assets`); put it on a schedule. `options` are those of
    `dg.define_asset_job`."""
    return dg.define_asset_job(name, selection=dg.AssetSelection.assets(*[asset.key for asset in assets]), **options)
