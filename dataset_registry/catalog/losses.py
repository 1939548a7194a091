"""Losses of a downgrade: each revision reports them before it changes anything; the downgrade is refused, or exports
the rows first.

A revision's `downgrade` calls `lose` for every kind of row or value that the revision before it has no place for, and continues:
`migrate.downgrade` runs all steps in one transaction, and rolls it back where something was lost unasked.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect, text

from dataset_registry.errors import DowngradeRefused

_NAMED = 20
"""Maximum number of rows of a kind that an error lists."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of one kind that a step of a downgrade loses. The first column of each row identifies it for users."""

    revision: str
    what: str
    rows: Sequence[dict[str, Any]]

    def __str__(self) -> str:
        names = list(dict.fromkeys(str(next(iter(row.values()))) for row in self.rows))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"revision {self.revision}: {self.what} ({len(self.rows):,}): {', '.join(names[:_NAMED])}{more}"


@dataclass(slots=True)
class Losses:
    """All that the steps of one downgrade lose."""

    found: list[Loss] = field(default_factory=list)

    def refusal(self, target: str) -> DowngradeRefused:
        """The error for a downgrade without `discard`."""
        listed = "\n  ".join(map(str, self.found))
        return DowngradeRefused(
            f"A downgrade to {target} would lose data, and nothing was changed:\n  {listed}\nStay here, or discard it: "
            f"dataset-registry db downgrade {target} --discard {target} (the rows are exported to a file first).",
            target=target,
            losses=[{"revision": loss.revision, "what": loss.what, "rows": len(loss.rows)} for loss in self.found],
        )

    def lines(self) -> Iterator[str]:
        """Every lost row as a line of JSON, for the export."""
        for loss in self.found:
            for row in loss.rows:
                yield json.dumps({"revision": loss.revision, "what": loss.what, "row": row}, default=_as_text)


def lose(revision: str, what: str, query: str) -> int:
    """Note the rows of a query as lost by the downgrade of a revision; how many those are.

    Raises `DowngradeRefused` where nothing collects losses: Alembic was called without `dataset-registry db downgrade`.
    """
    from alembic import context, op

    rows = [dict(row._mapping) for row in op.get_bind().execute(text(query))]
    if rows:
        collected = context.config.attributes.get("losses")
        loss = Loss(revision, what, rows)
        if collected is None:
            raise Losses([loss]).refusal("an older revision")
        collected.found.append(loss)
    return len(rows)


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes | memoryview) else str(value)


# --- versions that an older revision cannot hold ---------------------------------------------------------------------


def discard_versions(revision: str, condition: str) -> None:
    """Delete the versions for which a condition over `v` (a row of `dataset_versions`) holds, from whatever tables there are, and
    note all rows that go with them as lost.

    Their children get the nearest older version that stays as parent. Branches at a deleted version move to that one, too; tags
    at it are deleted.
    """
    from alembic import op

    connection = op.get_bind()
    tables = {*inspect(connection).get_table_names(), *inspect(connection).get_view_names()}
    found = connection.execute(
        text(f"SELECT v.id, v.parent_version_id FROM dataset_versions v WHERE {condition}")
    ).all()
    parents = dict(tuple(row) for row in found)
    if not parents:
        return
    gone = ", ".join(map(str, parents))
    for table, column, what in _ROWS_OF_A_VERSION:
        if table in tables:
            named = "d.name || '@v' || v.version_number AS version"
            joined = f"JOIN dataset_versions v ON v.id = t.{column} JOIN datasets d ON d.id = v.dataset_id"
            lose(
                revision,
                f"{what} of versions that go",
                f"SELECT {named}, t.* FROM {table} t {joined} WHERE v.id IN ({gone})",
            )
    if "productions" in tables:
        of = f"t.production_id IN (SELECT id FROM productions WHERE version_id IN ({gone}))"
        lose(
            revision,
            "inputs of productions of versions that go",
            f"SELECT t.dataset_name, t.* FROM production_inputs t WHERE {of}",
        )
        lose(
            revision,
            "links from productions to versions that go",
            f"SELECT t.dataset_name, t.* FROM production_inputs t WHERE t.version_id IN ({gone}) AND NOT {of}",
        )

    def remaining(version: int | None) -> int | None:
        while version in parents:
            version = parents[version]
        return version

    def run(statement: str, rows: Sequence[dict[str, Any]] = ()) -> None:
        if rows:
            connection.execute(text(statement), rows)

    versions = [{"id": version, "kept": remaining(version)} for version in parents]
    run("UPDATE dataset_versions SET parent_version_id = :kept WHERE parent_version_id = :id", versions)
    if "dataset_pointers" in tables:
        move = "UPDATE dataset_pointers SET dataset_version_id = :kept WHERE dataset_version_id = :id AND NOT is_tag"
        op.execute(f"UPDATE dataset_pointers SET base_version_id = NULL WHERE base_version_id IN ({gone})")
        run(move, [version for version in versions if version["kept"] is not None])
        op.execute(f"DELETE FROM dataset_pointers WHERE dataset_version_id IN ({gone})")
    if "productions" in tables:
        productions = f"SELECT id FROM productions WHERE version_id IN ({gone})"
        op.execute(f"UPDATE production_inputs SET version_id = NULL WHERE version_id IN ({gone})")
        op.execute(f"DELETE FROM production_inputs WHERE production_id IN ({productions})")
        op.execute(f"DELETE FROM productions WHERE version_id IN ({gone})")
    stored = set(inspect(connection).get_table_names())
    for table, column, _ in _ROWS_OF_A_VERSION:
        if table in stored and table not in ("productions", "dataset_pointers"):
            op.execute(f"DELETE FROM {table} WHERE {column} IN ({gone})")
    op.execute(f"DELETE FROM dataset_versions WHERE id IN ({gone})")
    if "manifest_pages" in stored:
        for statement in _ORPHANED_PAGES:
            op.execute(statement)


def discard_files(revision: str, gone: str) -> None:
    """Delete the files of a query for ids, and the tables with parts among them, when `discard_versions` has deleted the versions
    that have them. Grants on these files, and overlays that are such files, are noted as lost."""
    from alembic import op

    grants = "p.resource_type = 'file' AND p.resource_id"
    lose(
        revision,
        "grants on files that go",
        "SELECT u.username, f.content_hash, p.* FROM permissions p JOIN users u ON u.id = p.user_id "
        f"JOIN files f ON f.id = p.resource_id WHERE {grants} IN ({gone}) ORDER BY p.id",
    )
    lose(
        revision,
        "overlays that are files that go",
        "SELECT d.name || '@v' || v.version_number AS version, v.overlay_file_id FROM dataset_versions v "
        f"JOIN datasets d ON d.id = v.dataset_id WHERE v.overlay_file_id IN ({gone}) ORDER BY v.id",
    )
    tables = "SELECT id FROM files WHERE form = 'parts' AND id NOT IN (SELECT file_id FROM file_parts)"
    for statement in (
        f"DELETE FROM file_parts WHERE file_id IN (SELECT file_id FROM file_parts WHERE part_id IN ({gone}))",
        f"DELETE FROM file_captures WHERE file_id IN ({tables}) OR file_id IN ({gone})",
        f"DELETE FROM files WHERE id IN ({tables})",
        f"DELETE FROM permissions WHERE resource_type = 'file' AND resource_id IN ({gone})",
        f"UPDATE dataset_versions SET overlay_file_id = NULL WHERE overlay_file_id IN ({gone})",
        f"DELETE FROM files WHERE id IN ({gone})",
    ):
        op.execute(statement)


_ROWS_OF_A_VERSION = (
    ("dataset_pointers", "dataset_version_id", "branches and tags"),
    ("dataset_pointers", "base_version_id", "branches with bases"),
    ("productions", "version_id", "productions"),
    ("dataset_version_files", "version_id", "components"),
    ("dataset_schema_versions", "dataset_version_id", "schema snapshots"),
    ("version_parents", "version_id", "second parents"),
    ("version_parents", "parent_id", "second parents that are others"),
    ("version_reads", "version_id", "notes of readers"),
    ("version_checks", "version_id", "results of checks"),
    ("version_taints", "version_id", "taints"),
    ("version_sources", "version_id", "sources"),
    ("version_sources", "source_id", "sources of others"),
    ("version_index_pages", "version_id", "manifests"),
)
_ORPHANED_PAGES = (
    "DELETE FROM manifest_index_entries WHERE index_page_id NOT IN (SELECT index_page_id FROM version_index_pages)",
    "DELETE FROM manifest_index_pages WHERE id NOT IN (SELECT index_page_id FROM version_index_pages)",
    "DELETE FROM manifest_entries WHERE page_id NOT IN (SELECT page_id FROM manifest_index_entries)",
    "DELETE FROM manifest_pages WHERE id NOT IN (SELECT page_id FROM manifest_index_entries)",
)
