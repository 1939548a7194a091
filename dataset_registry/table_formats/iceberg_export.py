"""Versions in an Iceberg catalog of the user: each export is one snapshot of a table over the files in the store."""

from dataclasses import dataclass
from typing import cast

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, ValidationError
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Snapshot

from dataset_registry.content.source import CatalogContents
from dataset_registry.content.whole import as_objects
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.errors import InputError
from dataset_registry.operations import datasets
from dataset_registry.table_formats import iceberg, keeping
from dataset_registry.table_formats.published import PublishedTable, not_embedded
from dataset_registry.version import Version

_DIGEST, _VERSION, _DATASET = "registry.digest", "registry.version", "registry.dataset"
_SOURCE = "registry.source"
"""The property that says of which dataset and component a table is."""
_MAPPING = "schema.name-mapping.default"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: numbers of files, `kept` those that the table had before.

    `written` are the bytes of files that had no object of their own, 0 for most tables.
    """

    snapshot_id: int
    added: int
    removed: int
    kept: int
    written: int
    tag: str | None


def export_iceberg(
    version: Version,
    catalog: Catalog,
    identifier: str | tuple[str, ...],
    *,
    component: str | None = None,
    keep: bool = True,
) -> Exported:
    """Make a version the current snapshot of a table in an Iceberg catalog, which is created if it does not exist.

    The snapshot references the files where they are stored: nothing is copied, and files that the table has already stay. So the
    registry must keep them: with `keep` the version gets the tag `iceberg/<table>/v<number>`. Delete such a tag after the
    snapshot has expired in the table. The table must be changed by exports only, and never delete files (`gc.enabled=false`).

    Raises `InputError` for a remote registry, for types that Iceberg does not have, for a table that was changed by others, and
    for a column whose type changed to one that Iceberg does not widen to; `PermissionDenied`.
    """
    if not isinstance(version, EmbeddedVersion):
        raise not_embedded()
    access = version.access
    contents = CatalogContents(access)
    names = None if component is None else [component]
    published = PublishedTable(contents, version.record, names)
    wanted = iceberg.schema_of(published.schema)
    _refuse_equal_files(published)
    name = identifier if isinstance(identifier, str) else ".".join(identifier)
    dataset = _dataset(version)
    source = str(iceberg.table_uuid(dataset.record, component))
    table = _table(catalog, identifier, wanted, version, source)
    tag = keeping.keep(dataset, f"iceberg/{keeping.as_name(name)}", version.number) if keep else None
    written = as_objects(access, [parquet.file for parquet in published.files])
    if written:
        published = PublishedTable(contents, version.record, names)
    files = {contents.uri(parquet.file): parquet for parquet in published.files}
    before = _files_of(table)
    if table.current_snapshot() is not None and _is_exported(table.current_snapshot(), version):
        current = cast(Snapshot, table.current_snapshot())
        return Exported(current.snapshot_id, 0, 0, len(files), written, tag)
    with table.transaction() as transaction:
        _evolve(transaction, wanted, name)
        schema = transaction.table_metadata.schema()
        address_of = {parquet.content_hash: address for address, parquet in files.items()}
        described = iceberg.DataFiles(schema, published.schema, lambda parquet: address_of[parquet.content_hash])
        facts = {_DATASET: version.dataset, _VERSION: str(version.number), _DIGEST: str(version.digest)}
        with transaction.update_snapshot(snapshot_properties=facts).overwrite() as snapshot:
            for address, data_file in before.items():
                if address not in files:
                    snapshot.delete_data_file(data_file)
            for address, parquet in files.items():
                if address not in before:
                    snapshot.append_data_file(described.of(parquet))
    current = cast(Snapshot, table.current_snapshot())
    added = sum(address not in before for address in files)
    removed = sum(address not in files for address in before)
    return Exported(current.snapshot_id, added, removed, len(files) - added, written, tag)


def _refuse_equal_files(published: PublishedTable) -> None:
    """Raise `InputError` for a table with two files of the same rows: a table of Iceberg has an address once."""
    if twice := [parquet.content_hash for parquet in published.files if parquet.repeat]:
        raise InputError(
            f"The table of {published.version.dataset}@v{published.version.number} has the same rows twice, in one stored file "
            f"({twice[0][:12]}), which a table of Iceberg has once. Read it from the server's catalog instead.",
            hash=twice[0],
        )


def _dataset(version: EmbeddedVersion) -> EmbeddedDataset:
    return EmbeddedDataset(version.access, datasets.by_id(version.access, version.record.dataset_id))


def _table(
    catalog: Catalog, identifier: str | tuple[str, ...], wanted: Schema, version: EmbeddedVersion, source: str
) -> Table:
    """The table that exports of this dataset and component make. Raises `InputError` for another one."""
    try:
        table = catalog.load_table(identifier)
    except NoSuchTableError:
        catalog.create_namespace_if_not_exists(Catalog.namespace_from(identifier))
        properties = {"gc.enabled": "false", _DATASET: version.dataset, _SOURCE: source}
        return catalog.create_table(identifier, schema=wanted, properties=properties)
    name = ".".join(table.name())
    if table.properties.get(_SOURCE) != source:  # another one, or one of this name that was deleted
        raise InputError(
            f"The table {name} was not made by an export of {version.dataset}. Export to a new table.", table=name
        )
    snapshot = table.current_snapshot()
    if (snapshot is not None and _DIGEST not in _facts(snapshot)) or not table.spec().is_unpartitioned():
        raise InputError(
            f"The table {name} was changed by others since the last export. Export to a new table, or roll it back first.",
            table=name,
        )
    earlier = {path for schema in table.schemas().values() for path in iceberg.paths_of(schema)}
    lost = earlier - set(iceberg.paths_of(table.schema()))
    if again := [".".join(path) for path in iceberg.paths_of(wanted) if path in lost]:
        raise InputError(
            f"The table {name} had a column {again[0]!r} in an earlier snapshot, which could not be told from the new one. "
            "Export to a new table.",
            table=name,
            column=again[0],
        )
    if differing := iceberg.irreconcilable(table.schema(), wanted):
        raise InputError(
            f"The table {name} would have {differing[0]}, and no reader converts the one to the other. Export to a new table.",
            table=name,
        )
    return table


def _facts(snapshot: Snapshot) -> dict[str, str]:
    return dict(snapshot.summary.additional_properties) if snapshot.summary is not None else {}


def _is_exported(snapshot: Snapshot | None, version: EmbeddedVersion) -> bool:
    facts = {} if snapshot is None else _facts(snapshot)
    return (facts.get(_VERSION), facts.get(_DIGEST)) == (str(version.number), str(version.digest))


def _files_of(table: Table) -> dict[str, DataFile]:
    """The files of the current snapshot by their addresses."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return {}
    entries = (entry for manifest in snapshot.manifests(table.io) for entry in manifest.fetch_manifest_entry(table.io))
    return {entry.data_file.file_path: entry.data_file for entry in entries}


def _evolve(transaction: Transaction, wanted: Schema, name: str) -> None:
    """Give the table the columns of a version, and the mapping of its names to them. Raises `InputError`."""
    now = transaction.table_metadata.schema()
    gone = set(iceberg.paths_of(now)) - set(iceberg.paths_of(wanted))
    try:
        with transaction.update_schema() as update:
            update.union_by_name(wanted)
            for path in sorted(gone):
                if path[:-1] not in gone:
                    update.delete_column(path)
    except (ValidationError, ValueError, TypeError) as error:
        raise InputError(
            f"The columns of the table {name} cannot become those of this version: {error}. Export to a new table.",
            table=name,
        ) from error
    transaction.set_properties({_MAPPING: iceberg.name_mapping(transaction.table_metadata.schemas)})
