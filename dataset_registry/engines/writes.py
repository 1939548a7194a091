"""One version of a table, written by several processes: each writes a piece of the rows, one commits all of them.

Pieces are components of a dataset of their own, `<dataset>.writing-<id>`, which is deleted with the commit. A task that fails, or
is repeated, leaves a piece that no one commits. If the process that commits dies, the dataset stays, and says what it is for;
delete it. The table of the version consists of the parts that the tasks wrote: rows are written again only where pieces meet.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from dataset_registry.connection import Connection
from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import ConflictError, InputError, NotFound, RetryLater
from dataset_registry.model.names import MAIN, several, split_address
from dataset_registry.model.parts import TABLE, ChunkingRule
from dataset_registry.model.records import Provenance
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.version import Version

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["overwrite", "append"]


@dataclass(frozen=True)
class Piece:
    """What a task wrote: the component that has it, its rows, and the rule that they were split by."""

    component: str
    rows: int
    cut: ChunkingRule | None = None


@dataclass(frozen=True)
class TableWrite:
    """A table to be written, as a value that goes to the tasks."""

    connection: Connection
    dataset: str
    branch: str
    component: str
    staging: str
    mode: Mode = "overwrite"
    key: tuple[str, ...] = ()
    message: str | None = None
    previous: ComponentSchema | None = None

    @classmethod
    def begin(
        cls,
        address: str,
        component: str = "data",
        *,
        mode: Mode = "overwrite",
        key: str | Sequence[str] = (),
        message: str | None = None,
        head: "pa.Table | None" = None,
        fallback: str | None = None,
        connection: Connection | None = None,
        options: Mapping[str, object] | None = None,
    ) -> "TableWrite":
        """Begin to write the table at an address such as `raw/flights@main`; without `@`, to the branch `main`.

        `mode` is `overwrite` or `append`; `key` and `message` are those of `Dataset.commit`, `fallback` that of `Dataset.draft`;
        `options` are those of `Connection`, unless there is a `connection`. A table that is new and has no key is split by the
        columns that tell its rows apart: `head`, its first rows (65,536 are enough), says which; without it each task judges
        its own rows, and later versions may share fewer parts. A dataset that does not exist is created by the commit. Raises
        `InputError`, `PermissionDenied`.
        """
        if mode not in ("overwrite", "append"):
            raise InputError(f"Invalid mode {mode!r}. Use overwrite or append.", mode=mode)
        connection = connection or Connection.of(options or {})
        registry = connection.open()
        name, branch = split_address(address)
        draft = registry.draft(name, branch or MAIN, fallback=fallback)  # raises for a branch that cannot be written to
        previous = draft._previous(component, 0)
        if (previous is None or previous.tables[0].cut is None) and head is not None:
            from dataset_registry.tabular.parquet import rule_of_pieces

            cut = rule_of_pieces(head, several(key))
            previous = ComponentSchema(TABLE, (TableSchema(None, (), 0, {}, None, several(key), cut),))
        staging = f"{name}.writing-{uuid4().hex[:8]}"
        registry.create_dataset(staging, description=f"Pieces of a write to {address} that is not finished.")
        return cls(connection, name, branch or MAIN, component, staging, mode, several(key), message, previous)

    def write(self, rows: "pa.Table | Iterable[pa.RecordBatch]", schema: "pa.Schema | None" = None) -> Piece:
        """Write a piece, in a task; `schema` is that of batches. Raises as `Draft.add`."""
        component = uuid4().hex
        with self._staging().draft() as draft:
            made = draft._add_piece(component, _counted(rows, schema), key=self.key, previous=self.previous)
        assert made is not None, "a table has a schema"
        cut = None if made.cut is None else replace(made.cut, parts=0)
        return Piece(component, made.rows or 0, cut)

    def commit(self, pieces: Sequence[Piece], *, provenance: Provenance | None = None) -> Version:
        """Commit the pieces as one version, in this order; pieces without rows only if there is no other.

        Raises as `Draft.concatenate` and a commit. Until then nothing of the dataset has changed. After a `ConflictError` or
        `RetryLater` it can be tried again; after other errors the pieces are deleted.
        """
        registry = self.connection.open()
        with (
            self.aborted_on_error(ConflictError, RetryLater),
            registry.draft(self.dataset, self.branch, message=self.message, provenance=provenance) as draft,
        ):
            self.add_to(draft, pieces)
        self.abort()
        return draft.version

    def add_to(self, draft: Draft, pieces: Sequence[Piece], metadata: Mapping[str, object] | None = None) -> None:
        """Set the component of a draft to the pieces. Raises as `Draft.concatenate`."""
        full = [piece for piece in pieces if piece.rows] or list(pieces[:1])
        if not full:
            raise InputError("No task wrote a piece. Write one without rows to commit an empty table.")
        staged = self._staging().version()
        tables = [(staged, piece.component) for piece in full]
        rules = [piece.cut for piece in full]
        if self.mode == "append" and (before := self._before()) is not None:
            tables.insert(0, (before, self.component))
            rules.insert(0, before.captured([self.component])[0][2].tables[0].cut)
        elif self._is_new and self._is_small(staged, full):
            names = [piece.component for piece in full]
            draft.add(self.component, staged.to_arrow(names), key=self.key, metadata=metadata)
            return
        draft._concatenate(self.component, tables, key=self.key, metadata=metadata, rules=rules)

    @property
    def _is_new(self) -> bool:
        """Whether no version before has a rule of how the table is split."""
        return self.previous is None or not self.previous.tables[0].columns

    def _is_small(self, staged: Version, pieces: Sequence[Piece]) -> bool:
        """Whether a table of these rows is split finer than its pieces, which were written as those of a large one."""
        from dataset_registry.tabular.chunking import is_split_finer

        captured = staged.captured([piece.component for piece in pieces])
        tables = [table for _, _, schema in captured for table in schema.tables]
        if any(table.columns != tables[0].columns or table.user_types != tables[0].user_types for table in tables):
            return False  # concatenating them says what differs
        cut = pieces[0].cut
        return cut is not None and is_split_finer(sum(piece.rows for piece in pieces), cut.rows)

    @contextmanager
    def aborted_on_error(self, *retried: type[Exception]) -> Iterator[None]:
        """Delete the pieces if this block raises, unless it is one of the errors after which it is tried again."""
        try:
            yield
        except retried:
            raise
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Delete the pieces."""
        with suppress(NotFound):
            self._staging().delete()

    def _before(self) -> Version | None:
        """The version that rows are appended to, None if it has no such table."""
        with suppress(NotFound):
            found = self.connection.open().dataset(self.dataset).version(self.branch)
            return found if found.components_named([self.component]) else None
        return None

    def _staging(self) -> Dataset:
        return self.connection.open().dataset(self.staging)


def _counted(rows: Any, schema: "pa.Schema | None") -> "pa.Table | pa.RecordBatchReader":
    """Rows as something that the registry takes for a table."""
    import pyarrow as pa

    if hasattr(rows, "__arrow_c_stream__"):
        return rows
    batches: Iterator[pa.RecordBatch] = iter(rows)
    if schema is None:
        first = next(batches, None)
        if first is None:
            raise InputError("A piece without batches needs a schema.")
        return pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
    return pa.RecordBatchReader.from_batches(schema, batches)
