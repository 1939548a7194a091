"""The lineage of columns of an output: declared in its metadata, or derived from SQL and from DuckDB relations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import dagster as dg

from dataset_registry.dagster_io import metadata
from dataset_registry.dagster_io.branches import version_read
from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dagster_io.steps import files_of, query_of, reads_of
from dataset_registry.errors import InputError
from dataset_registry.model.column_lineage import LINEAGE_FACT, ColumnLineage, ColumnSource, lineage_to_json
from dataset_registry.model.records import InputVersion, Provenance

LINEAGE_KEY = "dagster/column_lineage"


class OutputLineage:
    """The lineage of the columns that a step writes. `found` is empty where nothing is known of it."""

    def __init__(self, context: Any, step: Any, registry: DatasetRegistryResource, prefix: str, value: Any) -> None:
        self._step = step
        self._registry = registry
        self._prefix = prefix
        self._log = context.log
        facts = {**(context.definition_metadata or {}), **(context.output_metadata or {})}
        self.is_declared = LINEAGE_KEY in facts
        declared = metadata.value(facts, LINEAGE_KEY)
        self.found = self._declared(declared) if declared is not None else self._derived(facts, value)

    def recorded(self, provenance: Provenance) -> Provenance:
        """The provenance with the lineage."""
        if not self.found:
            return provenance
        return replace(provenance, metadata={**provenance.metadata, LINEAGE_FACT: lineage_to_json(self.found)})

    def shown(self) -> dict[str, Any]:
        """The metadata of a materialization, unless the asset gave it itself."""
        if not self.found or self.is_declared:
            return {}
        deps = {
            column: [
                dg.TableColumnDep(
                    asset_key=self._keys.get(s.dataset, dg.AssetKey(s.dataset.split("/"))), column_name=s.column
                )
                for s in sources
            ]
            for column, sources in self.found.items()
        }
        return {LINEAGE_KEY: dg.TableColumnLineage(deps_by_column=deps)}

    @cached_property
    def _keys(self) -> Mapping[str, dg.AssetKey]:
        """The assets of the code location by their datasets."""
        if self._step is None:
            return {}
        return metadata.assets_of(self._step.job_def.asset_layer.asset_graph, self._prefix)

    def _declared(self, lineage: dg.TableColumnLineage) -> ColumnLineage:
        names = {key: name for name, key in self._keys.items()}
        return {
            column: tuple(
                ColumnSource(names.get(dep.asset_key, "/".join(dep.asset_key.path)), dep.column_name) for dep in deps
            )
            for column, deps in lineage.deps_by_column.items()
        }

    def _derived(self, facts: Mapping[str, Any], value: Any) -> ColumnLineage:
        """The lineage of a query in the metadata, or of relations that were returned."""
        query = metadata.value(facts, metadata.SQL_KEY)
        values = list(value.values()) if isinstance(value, Mapping) else [value]
        queries = [(str(query), value)] if query is not None else [(query_of(item), item) for item in values]
        known = [(sql, item) for sql, item in queries if sql is not None]
        if not known or find_spec("sqlglot") is None:
            return {}
        found: dict[str, dict[ColumnSource, None]] = {}
        for sql, item in known:
            for column, sources in self._traced(sql, _names(item)).items():
                found.setdefault(column, {}).update(dict.fromkeys(sources))
        return {column: tuple(sources) for column, sources in found.items()}

    def _traced(self, sql: str, names: Sequence[str] | None) -> ColumnLineage:
        """The lineage of a query, whose columns have these names in the output."""
        from dataset_registry.tabular.sql_lineage import lineage_of

        reads = [
            (read, version)
            for read in reads_of(self._step)
            if (version := version_read(self._registry, read)) is not None
        ]
        tables: dict[str, Sequence[str]] = {}
        datasets: dict[str, str] = {}
        # The name of an input goes before that of a dataset, and that before the last part of one.
        for name_of in (_label, _dotted, _last):
            for read, version in reads:
                name = name_of(read)
                if name and name not in tables:
                    tables[name] = [column.name for column in version.schema.columns]
                    datasets[name] = read.dataset
        try:
            found = lineage_of(sql, tables, files=files_of(self._step))
        except InputError as error:
            self._log.debug(f"No column lineage: {error}")
            return {}
        traced = [
            (column, tuple(ColumnSource(datasets[source.dataset], source.column) for source in sources))
            for column, sources in found.items()
        ]
        if names is not None and len(names) == len(traced):
            return {name: sources for name, (_, sources) in zip(names, traced, strict=True)}
        folded = {name.casefold(): name for name in names or ()}
        return {folded.get(column, column): sources for column, sources in traced}


def _label(read: InputVersion) -> str | None:
    return read.label


def _dotted(read: InputVersion) -> str:
    return ".".join(read.dataset.split("/")[-2:])


def _last(read: InputVersion) -> str:
    return read.dataset.rpartition("/")[2]


def _names(value: Any) -> list[str] | None:
    """The columns of a relation or an Arrow table, None of another value."""
    names = getattr(value, "columns", None) if query_of(value) is not None else getattr(value, "column_names", None)
    return list(map(str, names)) if isinstance(names, list) else None
