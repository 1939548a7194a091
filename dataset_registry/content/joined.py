"""Tables one behind the other as one table, which shares their parts."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain

from dataset_registry.content.stage import Staged, keep_part
from dataset_registry.errors import InputError
from dataset_registry.model.chunks import FileFacts, PartFacts
from dataset_registry.model.parts import TABLE, ChunkingRule, Part, parts_digest
from dataset_registry.model.schema import ComponentSchema, TableSchema
from dataset_registry.store import Spool, Spooled

_AROUND = 3
"""Parts of unknown length that are opened on each side of where two tables meet."""


def stage_joined(
    spool: Spool, pieces: Sequence[tuple[str, Staged]], rules: Sequence[ChunkingRule | None] | None = None
) -> Staged:
    """Stage tables one behind the other, each with a label for errors. Raises `InputError` if they do not fit together.

    `rules` are the chunking rules that the tables were split by, where those of their schemas may be others: the schema of
    content that was stored before is the one of then.

    Parts are those that the whole table has if it is written at once, where all tables are split by the same rule: only those
    where two tables meet are written again.
    """
    tables = [_table(label, staged) for label, staged in pieces]
    if rules is not None:
        tables = [replace(table, cut=rule) for table, rule in zip(tables, rules, strict=True)]
    first = tables[0]
    for (label, _), table in zip(pieces[1:], tables[1:], strict=True):
        _check_fit(pieces[0][0], first, label, table)
    sources = [_parts(staged) for _, staged in pieces]
    parts = list(chain.from_iterable(sources))
    new: dict[str, FileFacts] = {}
    cut = _shared_rule(tables)
    if cut is not None and len(pieces) > 1:
        seams = set(accumulate(map(len, sources[:-1])))
        parts, new = _around_seams(spool, first, parts, seams, cut)
    from dataset_registry.tabular.parquet import combined_statistics

    known = [PartFacts(table.rows or 0, table.statistics, ()) for table in tables]
    rule = cut or first.cut
    schema = replace(
        first,
        rows=sum(table.rows or 0 for table in tables),
        statistics=combined_statistics(first.columns, known),
        cut=None if rule is None else replace(rule, parts=len(parts)),
    )
    listed = tuple(Part(file.content_hash, file.size, rows) for file, rows in parts)
    spooled = {file.content_hash: file for file, _ in parts}
    size = sum(part.size for part in listed)
    whole = ComponentSchema(TABLE, (schema,))
    return Staged(parts_digest(listed), size, TABLE, whole, tuple(spooled.values()), listed, new)


def _table(label: str, staged: Staged) -> TableSchema:
    if staged.format != TABLE or staged.schema is None or len(staged.schema.tables) != 1:
        raise InputError(
            f"{label} is not stored as a table: its format is {staged.format}. Read it, and commit it as a table first."
        )
    return staged.schema.tables[0]


def _check_fit(first_label: str, first: TableSchema, label: str, table: TableSchema) -> None:
    ours = [(column.name, column.type) for column in first.columns]
    theirs = [(column.name, column.type) for column in table.columns]
    if ours != theirs:
        differing = next((f"{a} and {b}" for a, b in zip(ours, theirs, strict=False) if a != b), "their number")
        raise InputError(
            f"{first_label} and {label} cannot be one table: their columns differ ({differing}). Cast one to the types of the "
            "other."
        )
    if first.user_types != table.user_types:
        raise InputError(
            f"{first_label} and {label} cannot be one table: their writers had other types, such as categories. Cast them to "
            "plain types."
        )


def _parts(staged: Staged) -> list[tuple[Spooled, int]]:
    """The parts of a table in order, each with its rows; 0 where they are not known."""
    if staged.parts is None:
        (file,) = staged.spooled
        return [(file, (staged.schema.tables[0].rows if staged.schema else None) or 0)]
    files = {file.content_hash: file for file in staged.spooled}
    return [(files[part.content_hash], part.rows) for part in staged.parts]


def _shared_rule(tables: Sequence[TableSchema]) -> ChunkingRule | None:
    """The chunking rule of all tables, None if they do not have the same."""
    rules = {replace(table.cut, parts=0) for table in tables if table.cut is not None}
    return rules.pop() if len(rules) == 1 and all(table.cut is not None for table in tables) else None


def _around_seams(
    spool: Spool, schema: TableSchema, sources: Sequence[tuple[Spooled, int]], seams: set[int], cut: ChunkingRule
) -> tuple[list[tuple[Spooled, int]], dict[str, FileFacts]]:
    """All parts in order, each with its rows, and the facts of those that were written again."""
    from dataset_registry.tabular import edits, parquet
    from dataset_registry.tabular.rows import TablePart
    from dataset_registry.tabular.table_merge import TableVersion

    near = {at for seam in seams for at in range(seam - _AROUND, seam + _AROUND)}
    stored = []
    for at, (file, rows) in enumerate(sources):
        load = partial(spool.path, file)
        count = rows if rows or at not in near else parquet.row_count(load())
        stored.append(TablePart(file.content_hash, count, load))
    whole = TableVersion(("", 0), stored, schema).own_rows()
    found, _ = edits.write_joined(whole, seams, cut, partial(keep_part, spool))
    parts: list[tuple[Spooled, int]] = []
    new: dict[str, FileFacts] = {}
    for item in found:
        if isinstance(item, int):
            parts.append(sources[item])
        else:
            (made, chunks), facts = item
            parts.append((made, facts.rows))
            new[made.content_hash] = FileFacts(chunks, facts.statistics)
    return parts, new
