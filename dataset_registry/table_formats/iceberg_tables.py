"""A dataset as an Iceberg table: its versions as snapshots, its metadata files as objects that are made when they are read."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

from cachetools import LRUCache
from pyiceberg.schema import Schema

from dataset_registry.content.source import CatalogContents
from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.names import MAIN
from dataset_registry.model.records import VersionRecord
from dataset_registry.operations import history
from dataset_registry.table_formats import iceberg
from dataset_registry.table_formats.published import PublishedTable

BUCKET = "s3://registry"
"""The address under which the server offers stored files and metadata as an object store."""
DATA = "data/"
"""The folder of stored files in that of a table: clients scope the credentials that they are given to the latter."""
MOST_SNAPSHOTS = 1000
"""The newest versions that are snapshots, in addition to those that branches and tags name."""

_FILE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})-(list|changes|existing)\.avro")
_METADATA = ".metadata.json"


@dataclass(frozen=True)
class IcebergTable:
    """The table of a dataset, or that of one of its components. `ref` is what the branch `main` of the table is."""

    dataset: EmbeddedDataset
    component: str | None = None
    ref: str = MAIN

    @property
    def location(self) -> str:
        """The address of the folder of its metadata."""
        part = "-" if self.component is None else "=" + quote(self.component, safe="")
        return f"{BUCKET}/iceberg/{self.dataset.id}/{part}"

    @classmethod
    def at(cls, dataset: EmbeddedDataset, part: str) -> "IcebergTable":
        """The table whose location ends with this part. Raises `NotFound`."""
        if part != "-" and not part.startswith("="):
            raise NotFound(f"No table {part!r}.")
        return cls(dataset, unquote(part[1:]) if part != "-" else None)

    @property
    def metadata_location(self) -> str:
        """The address of its table metadata, which are always those of now."""
        return f"{self.location}/{quote(self.ref, safe='')}{_METADATA}"

    def metadata(self, *, refs_only: bool = False) -> dict[str, Any]:
        """Its table metadata; with `refs_only` the snapshots of branches and tags only.

        Versions that Iceberg cannot read as tables are no snapshots. Raises `InputError` if the current one is none, `NotFound`.
        """
        current = self.dataset.version(self.ref).record
        refs = {MAIN: (current, False)}
        for pointer in [*self.dataset.branches(), *self.dataset.tags()]:
            if pointer.name != MAIN:
                with suppress(NotFound):  # deleted just now
                    refs[pointer.name] = self.dataset.version(f"v{pointer.version_number}").record, pointer.is_tag
        versions = {record.number: record for record, _ in refs.values()}
        if not refs_only:
            found = history.tree(self.dataset.access, self.dataset.record, limit=MOST_SNAPSHOTS)
            versions |= {record.number: record for record in found}
        schemas: dict[int, Schema] = {current.number: self._schema(current)}
        for number, record in versions.items():
            if number not in schemas:
                with suppress(InputError, NotFound):
                    schemas[number] = self._schema(record)
        snapshots = [
            iceberg.Snapshot(versions[number], schemas[number], self._address(versions[number], schemas, "list"))
            for number in sorted(schemas)
        ]
        named = {name: (record.number, is_tag) for name, (record, is_tag) in refs.items() if record.number in schemas}
        location = self.location
        return iceberg.table_metadata(self.dataset.record, self.component, location, snapshots, named, current.number)

    def file(self, name: str) -> bytes:
        """The content of one of its metadata files. Raises `NotFound`, `InputError`."""
        if name.endswith(_METADATA):
            table = IcebergTable(self.dataset, self.component, unquote(name.removesuffix(_METADATA)))
            return json.dumps(table.metadata()).encode()
        found = _FILE.fullmatch(name)
        if found is None:
            raise NotFound(f"No metadata file {name!r}.")
        version = self.dataset.version(f"v{int(found[1])}").record
        if int(found[2]) not in (0, *version.parents[:1]):
            raise NotFound(f"No metadata file {name!r}.")
        key = (*self._identity, version.id, int(found[2]))
        with _lock:
            made = _manifests.get(key)
        if made is None:
            made = self._manifests(version, int(found[2]))
            with _lock, suppress(ValueError):  # larger than all that is kept
                _manifests[key] = made
        if name not in made:
            raise NotFound(f"No metadata file {name!r}.")
        return made[name]

    def _manifests(self, version: VersionRecord, parent: int) -> Mapping[str, bytes]:
        """The manifest list and the manifests of a version by their names."""
        table = self._table(version)
        before = self._table(self.dataset.version(f"v{parent}").record).files if parent else []
        names = {part: f"{version.number}-{parent}-{part}.avro" for part in ("list", "changes", "existing")}
        made = iceberg.manifests(
            version.number,
            table.files,
            table.schema,
            (parent, before) if parent else None,
            {part: f"{self.location}/{name}" for part, name in names.items()},
            f"{self.location}/{DATA}",
        )
        return {names["list"]: made.listed} | {path.rpartition("/")[2]: content for path, content in made.files.items()}

    def _address(self, version: VersionRecord, there: Mapping[int, Schema], part: str) -> str:
        parent = next((number for number in version.parents[:1] if number in there), 0)
        return f"{self.location}/{version.number}-{parent}-{part}.avro"

    def _schema(self, version: VersionRecord) -> Schema:
        key = (*self._identity, version.id)
        with _lock:
            found: Schema | InputError | None = _schemas.get(key)
        if found is None:
            try:
                table = self._table(version)
                found = iceberg.schema_of(table.schema)
                table.refuse_odd_files()
            except InputError as error:
                found = error
            with _lock:
                _schemas[key] = found
        if isinstance(found, InputError):
            raise found
        return found

    def _table(self, version: VersionRecord) -> PublishedTable:
        names = None if self.component is None else [self.component]
        return PublishedTable(CatalogContents(self.dataset.access), version, names)

    @property
    def _identity(self) -> tuple[object, ...]:
        return self.dataset.access.catalog, self.dataset.id, self.component


# What versions have does not change. Who may read them is checked by looking them up.
_lock = Lock()
_schemas: LRUCache[tuple[object, ...], Schema | InputError] = LRUCache(1 << 14)
_manifests: LRUCache[tuple[object, ...], Mapping[str, bytes]] = LRUCache(
    1 << 26, getsizeof=lambda made: sum(map(len, made.values()))
)
