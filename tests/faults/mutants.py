"""What the write protocol would be with one of its parts taken out; each of these loses data, and must be seen to.

A mutant is applied to the package in memory: by a test through monkeypatch, or for good in the workers of the crash test.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, exists, select, text, true

from dataset_registry.catalog import Catalog, Transaction, collection, engine, files, holds, manifests, pointers
from dataset_registry.catalog.tables import file_parts, manifest_pages
from dataset_registry.catalog.tables import files as file_rows
from dataset_registry.content import pack, upload
from dataset_registry.errors import StorageError
from dataset_registry.operations import commit
from dataset_registry.store import FolderStore

Patch = Callable[[Any, str, Any], object]


def apply(name: str, patch: Patch = setattr) -> None:
    """Let the package be the mutant of this name."""
    MUTANTS[name](patch)


def hash_as_key(patch: Patch) -> None:
    """The physical key of a content is made of its hash alone, and a store finds that it has it already."""
    real_put = FolderStore.put

    def tolerant_put(self: FolderStore, key: str, source: Path | bytes) -> int:
        try:
            return real_put(self, key, source)
        except StorageError:
            if (size := self.size(key)) is None:
                raise
            return size

    patch(upload, "new_key", lambda content_hash: f"{content_hash}.{'0' * 32}")
    patch(FolderStore, "put", tolerant_put)


def collection_in_one_statement(patch: Patch) -> None:
    """Files are looked at and deleted in one statement: it looks with a snapshot that is older than its locks."""

    def take(tx: Transaction, ids: Sequence[int]) -> list[int]:
        part_of_a_table = exists().where(file_parts.c.part_id == file_rows.c.id)
        free = (
            select(file_rows.c.id)
            .where(file_rows.c.id.in_(ids), collection._unnamed(true()), ~part_of_a_table)
            .with_for_update(skip_locked=True)
            .correlate(None)
        )
        return _delete(tx, file_rows.c.id.in_(free))

    patch(collection, "take", take)


def collection_without_a_second_look(patch: Patch) -> None:
    """What a plan names is deleted, whatever came to name it since."""
    patch(collection, "take", lambda tx, ids: _delete(tx, file_rows.c.id.in_(ids)))


def _delete(tx: Transaction, condition: Any) -> list[int]:
    """Files of plain bytes only: nothing was captured of them."""
    rows = tx.execute(delete(file_rows).where(condition).returning(file_rows.c.id, file_rows.c.object_key)).all()
    holds.discard(tx, [key for _, key in rows])
    return [file_id for file_id, _ in rows]


def pointers_not_locked(patch: Patch) -> None:
    """A commit reads the head of its branch and moves it, and nobody keeps others from doing the same."""
    patch(pointers, "lock", lambda tx, dataset_id, name: None)


def hits_without_holds(patch: Patch) -> None:
    """Content that is stored already is named as it was found: without a hold before, without a look in the commit."""
    real_upload, real_known = commit.upload_contents, files.LookUp.known
    seen: dict[str, Any] = {}

    def careless_upload(access: Any, spool: Any, dataset: Any, change: Any, *how: Any, **options: Any) -> Any:
        seen.clear()
        wanted = change.contents().files
        with access.catalog.read() as tx:
            seen.update(real_known(files.LookUp(tx, list(wanted)))[0])
        if seen.keys() == wanted.keys():
            return pack.PackPlan(), upload.Upload()
        return real_upload(access, spool, dataset, change, *how, **options)

    def remembered(asked: files.LookUp) -> tuple[dict[str, Any], set[str]]:
        found, damaged = real_known(asked)
        return found | {
            content_hash: seen[content_hash] for content_hash in asked.hashes if content_hash in seen
        }, damaged

    patch(commit, "upload_contents", careless_upload)
    patch(files.LookUp, "known", remembered)


def pages_by_digest(patch: Patch) -> None:
    """A commit names any page that has the digest it needs, not only those of the versions that it has locked."""
    real_store = manifests._store_page

    def store_page(tx: Transaction, page: Any) -> int:
        same = select(manifest_pages.c.id).where(manifest_pages.c.digest == page.digest).limit(1)
        return tx.execute(same).scalar() or real_store(tx, page)

    patch(manifests, "_store_page", store_page)


def no_foreign_keys(patch: Patch) -> None:
    """SQLite does not look at foreign keys; on PostgreSQL see `drop_foreign_key`."""
    real_configure = engine.configure_sqlite

    def configure(connection: Any, record: object) -> None:
        real_configure(connection, record)
        connection.execute("PRAGMA foreign_keys=OFF")

    patch(engine, "configure_sqlite", configure)


def _both(*mutants: Callable[[Patch], None]) -> Callable[[Patch], None]:
    def apply_all(patch: Patch) -> None:
        for mutant in mutants:
            mutant(patch)

    return apply_all


MUTANTS: dict[str, Callable[[Patch], None]] = {
    "hash-as-key": hash_as_key,
    "one-statement": _both(collection_in_one_statement, no_foreign_keys),
    "no-second-look": _both(collection_without_a_second_look, no_foreign_keys),
    "no-pointer-lock": pointers_not_locked,
    "no-holds": _both(hits_without_holds, no_foreign_keys),
    "pages-by-digest": _both(pages_by_digest, no_foreign_keys),
}

FOREIGN_KEYS = {
    "one-statement": ("manifest_entries", "file_id"),
    "no-second-look": ("manifest_entries", "file_id"),
    "no-holds": ("manifest_entries", "file_id"),
    "pages-by-digest": ("manifest_index_entries", "page_id"),
}
"""What hides the hole that a mutant makes, by table and column: see `drop_foreign_key`."""


def drop_foreign_key(url: str, table: str, column: str) -> None:
    """Take a foreign key out of a PostgreSQL catalog: what holds without it, holds by the protocol alone."""
    catalog = Catalog(url)
    catalog.write(lambda tx: tx.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT fk_{table}_{column}")))
    catalog.close()
