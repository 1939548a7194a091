"""Commands about versions: log, show, schema, diff, lineage."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_registry.cli import graph, target
from dataset_registry.cli.arguments import Address, DatasetName
from dataset_registry.cli.merges import counts, write_rows
from dataset_registry.cli.output import (
    AsJson,
    Yes,
    confirmed,
    count_of,
    first_line,
    moment,
    print_checks,
    print_facts,
    print_json,
    print_table,
    say,
    size,
    working,
)
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.names import MAIN, suggestion

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset
    from dataset_registry.model.diff import RowSummary
    from dataset_registry.registry import Registry
    from dataset_registry.version import Version


app = typer.Typer()
version_app = typer.Typer(no_args_is_help=True, help="Descendants and consumers of a version; delete a version.")


@app.command()
@here
def log(
    registry: "Registry",
    address: Address,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every version, on all branches.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="Maximum number of versions.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the history of a ref as a graph. Versions come before their parents."""
    from dataset_registry.wire.datasets import VersionResponse

    dataset, ref = registry.at(address)
    found = dataset.tree()[:limit] if everything else dataset.log(ref or MAIN, limit=limit)
    if as_json:
        print_json([VersionResponse.of(version.record) for version in found])
        return
    refs: dict[int, list[str]] = {}
    for pointer in [*dataset.branches(), *dataset.tags()]:
        label = f"tag: {pointer.name}" if pointer.is_tag else pointer.name
        refs.setdefault(pointer.version_number, []).append(label)
    for line in graph.draw((v.number, v.parents, _line(v, refs.get(v.number, []))) for v in found):
        say(line)


def _line(version: "Version", refs: list[str]) -> str:
    where = f" ({', '.join(refs)})" if refs else ""
    message = first_line(version.message)
    who = f"{version.created_by or 'unknown'}, {moment(version.created_at)}"
    return f"v{version.number} {(version.digest or 'legacy')[:8]}{where} {message} · {who}".replace("  ", " ")


@app.command()
@here
def show(registry: "Registry", address: Address, as_json: AsJson = False) -> None:
    """Show a version: author, inputs, checks and components."""
    from dataset_registry.wire.checks import CheckResponse
    from dataset_registry.wire.commits import ProductionResponse
    from dataset_registry.wire.datasets import ComponentResponse, VersionResponse

    version = registry.version(address)
    productions = version.productions
    if as_json:
        shapes = [ComponentResponse.of(component) for component in version.components]
        made = [ProductionResponse.of(production) for production in productions]
        checked = [CheckResponse.of(check) for check in version.checks]
        print_json(
            {
                "version": VersionResponse.of(version.record),
                "components": shapes,
                "productions": made,
                "checks": checked,
            }
        )
        return
    print_facts(
        [
            ("version", version),
            ("digest", version.digest),
            ("parents", ", ".join(f"v{number}" for number in version.parents)),
            ("created", f"{moment(version.created_at)} by {version.created_by or 'unknown'}"),
            ("message", version.message),
        ]
    )
    for production in productions:
        provenance = production.provenance
        inputs = ", ".join(f"{read.dataset}@v{read.version}" for read in provenance.inputs)
        if provenance.run_id or inputs:
            again = " again, unchanged," if production.unchanged else ""
            say(f"produced{again} by run {provenance.run_id or '?'}" + (f" from {inputs}" if inputs else ""))
    print_checks(version)
    schema = version.schema
    rows = []
    for c in version.components:
        found = schema.components.get(c.name if c.index == 0 else f"{c.name}[{c.index}]")
        count = found.rows if found else None
        label = c.name + (f"[{c.index}]" if c.index else "")
        rows.append(
            [label, c.type, c.format, "" if count is None else f"{count:,}", size(c.size), (c.content_hash or "")[:12]]
        )
    print_table(["component", "type", "format", "rows", "size", "hash"], rows)


@app.command()
@here
def schema(
    registry: "Registry",
    address: Address,
    component: Annotated[str | None, typer.Argument(help="A component. Default: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the columns of a version's tables, with statistics."""
    from dataset_registry.wire.datasets import CapturedResponse, SchemaResponse

    version = registry.version(address)
    if component is not None and not version.components_named([component]):
        names = [found.name for found in version.components]
        raise NotFound(f"{version} has no component {component!r}. {suggestion(component, names)}", component=component)
    captured = version.captured(component)
    if as_json:
        shapes = [CapturedResponse.of(*found) for found in captured]
        print_json(SchemaResponse(dataset_version_id=version.id, components=shapes))
        return
    for name, index, found in captured:
        for table in found.tables:
            label = name + (f"[{index}]" if index else "") + (f"/{table.name}" if table.name else "")
            say(f"{label}: {found.format}, {'?' if table.rows is None else count_of(table.rows, 'row')}")
            rows = []
            for column in table.columns:
                facts = table.statistics.get(column.name)
                known = [None] * 3 if facts is None else [facts.null_count, facts.min, facts.max]
                rows.append([column.name, column.type, "" if column.nullable else "not null", *map(_text, known)])
            print_table(["column", "type", "", "nulls", "min", "max"], rows)


def _text(value: object) -> str:
    return "" if value is None else str(value)[:40]


@app.command()
@here
def diff(
    registry: "Registry",
    address: Annotated[
        str, typer.Argument(help="A dataset, or a version: raw/flights@v1.", autocompletion=target.complete_address)
    ],
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BEFORE [AFTER]]",
            help="Refs, or one range: v1..v2, main...pr-12. Default: the head of main against its parent.",
            autocompletion=target.complete_ref,
        ),
    ] = None,
    component: Annotated[str | None, typer.Option("--component", "-c", help="One component.")] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", help="How many rows of a table to show; -1 counts none.")] = 10,
    key: Annotated[
        list[str] | None, typer.Option("--key", "-k", help="A column to match rows by. Default: the table's key.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="Write all rows that differ: csv, json, parquet or arrow.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file for --format.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the changes between two versions: components, the columns of their tables, and rows.

    diff DS compares the head of main with its parent, diff DS REF a ref with main; diff DS A B, diff DS A..B and
    diff DS@A DS@B compare A with B; diff DS A...B compares their common ancestor with B. A missing side of a range is main.
    """
    from dataset_registry.wire.datasets import ComparisonResponse
    from dataset_registry.wire.merges import RowSummaryResponse

    dataset, before, after = _compared(registry, address, refs or [])
    if format is not None or output is not None:
        write_rows(dataset.diff_rows(before, after, component, key=key or ()), format or "csv", output)
        return
    found = dataset.diff(before, after)
    with working(f"comparing {before} with {after}"):
        summaries = dataset.diff_summary(before, after, component) if rows >= 0 else {}
    if as_json:
        counted = {label: RowSummaryResponse.of(summary) for label, summary in summaries.items()}
        print_json({**ComparisonResponse.of(found).model_dump(mode="json"), "rows": counted})
        return
    say(f"{dataset.name} v{found.before.number} -> v{found.after.number}")
    for sign, keys in (
        ("+", found.components.added),
        ("-", found.components.removed),
        ("~", found.components.changed),
    ):
        for name, index in keys:
            say(f"{sign} {name}{f'[{index}]' if index else ''}")
    for label, parts in found.parts.items():
        say(
            f"{label}: {parts.removed} of {count_of(parts.removed + parts.shared, 'part')} rewritten "
            f"({parts.removed_rows:,} → {parts.added_rows:,} rows)"
        )
    for label, changes in found.schema.items():
        reads = ", ".join(
            text for holds, text in ((changes.backward, "backward"), (changes.forward, "forward")) if holds
        )
        say(f"columns of {label} ({reads + ' compatible' if reads else 'not compatible'}):")
        for change in changes.changes:
            say(f"  {change}")
    for label, summary in summaries.items():
        _print_rows(dataset, before, after, label, summary, rows, key or ())
    if not found.components:
        say("no difference")


def _print_rows(
    dataset: "Dataset",
    before: str,
    after: str,
    label: str,
    summary: "RowSummary",
    limit: int,
    key: list[str] | tuple[()],
) -> None:
    """Print what differs in the rows of a table: counts, then the first rows with their changed cells."""
    cells = ", ".join(f"{name} {count:,}" for name, count in summary.cells.items())
    say(
        f"{label}: {counts(summary.added, summary.removed, summary.changed)}, {summary.unchanged:,} unchanged"
        + (f"; cells: {cells}" if cells else "")
    )
    if not summary or not limit:
        return
    name, _, sheet = label.partition("/") if "/" in label and label not in _names(dataset, after) else (label, "", None)
    component, index = _named_index(name)
    found = dataset.diff_rows(before, after, component, index=index, sheet=sheet, key=key, limit=limit)
    rows = [row for batch in found for row in batch.to_pylist()]
    signs = {"added": "+", "removed": "−", "changed": "Δ"}
    columns = [column for column in found.schema.names if column != "change"]
    pairs = [column.removeprefix("before_") for column in columns if column.startswith("before_")]
    plain = [column for column in columns if not column.startswith(("before_", "after_"))]
    table = []
    for row in rows:
        sides = [(row[f"before_{column}"], row[f"after_{column}"]) for column in pairs]
        table.append(
            [signs[row["change"]], *(_cell(row[c]) for c in plain), *(_side(row["change"], *s) for s in sides)]
        )
    print_table(["", *plain, *pairs], table)


def _side(change: str, before: object, after: object) -> str:
    """A cell of a row that differs: its value, or both if they differ."""
    if change == "added":
        return _cell(after)
    if change == "removed" or repr(before) == repr(after):  # NaN equals NaN
        return _cell(before)
    return f"{_cell(before)} → {_cell(after)}"


def _cell(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _names(dataset: "Dataset", ref: str) -> set[str]:
    return {c.name for c in dataset.version(ref).components}


def _named_index(label: str) -> tuple[str, int]:
    """The name and the index of a component's label."""
    found = re.fullmatch(r"(.*)\[(\d+)\]", label)
    return (found[1], int(found[2])) if found else (label, 0)


_RANGE = re.compile(r"(.*?)(?<!\.)(\.{2,3})(?!\.)(.*)")


def _base(dataset: "Dataset", before: str, after: str) -> str:
    """The ref of the newest common ancestor. Raises `InputError` if there is none."""
    found = dataset.merge_base(before, after)
    if found is None:
        raise InputError(
            f"{before} and {after} of {dataset.name} have no common history. Compare them with: {before}..{after}"
        )
    return f"v{found.number}"


def _compared(registry: "Registry", address: str, refs: list[str]) -> tuple["Dataset", str, str]:
    """Resolve the arguments of `diff` to a dataset and two refs. Raises `InputError`."""
    dataset, ref = registry.at(address)
    if ref is not None and not refs and _RANGE.fullmatch(ref):
        refs, ref = [ref], None
    limits = _RANGE.fullmatch(refs[0]) if len(refs) == 1 else None
    if len(refs) > 2 or (ref is not None and (len(refs) > 1 or limits)):
        raise InputError("diff compares two versions: expected DS, DS REF, DS A B, DS A..B, DS A...B or DS@A DS@B.")
    if limits is not None:
        before, dots, after = limits[1] or MAIN, limits[2], limits[3] or MAIN
        return dataset, _base(dataset, before, after) if dots == "..." else before, after
    if ref is not None and len(refs) == 1:
        other, after = registry.at(refs[0]) if "@" in refs[0] else (dataset, refs[0])
        if other.name != dataset.name:
            raise InputError(
                f"{address} and {refs[0]} are versions of different datasets. Compare versions of one dataset."
            )
        return dataset, ref, after or MAIN
    if len(refs) == 2:
        return dataset, refs[0], refs[1]
    if len(refs) == 1:
        return dataset, refs[0], MAIN
    head = ref or MAIN
    if not dataset.version(head).parents:
        raise InputError(f"{dataset.name}@{head} is the first version: it has no parent to compare with.")
    return dataset, f"{head}~1", head


@app.command()
@here
def lineage(
    registry: "Registry",
    address: Address,
    down: Annotated[bool, typer.Option("--down", help="Show what was produced from the version instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the versions that a version was produced from, as a tree."""
    version = registry.version(address)
    found = _lineage(registry, version, down=down, seen=set())
    if as_json:
        print_json(found)
        return
    _say_tree(found, "", "")


def _lineage(registry: "Registry", version: "Version", *, down: bool, seen: set[str]) -> dict[str, Any]:
    """A version with its inputs, or with its consumers. A repeated version is listed without them."""
    name = str(version)
    found: dict[str, Any] = {"version": name, "consumers" if down else "inputs": []}
    if name in seen:
        return found
    seen.add(name)
    inputs = [(read.dataset, read.version) for read in version.provenance.inputs]
    near = version.consumers if down else inputs
    for dataset, number in near:
        try:
            other = registry.dataset(dataset).version(f"v{number}")
        except NotFound:
            found["consumers" if down else "inputs"].append({"version": f"{dataset}@v{number}", "is_deleted": True})
            continue
        found["consumers" if down else "inputs"].append(_lineage(registry, other, down=down, seen=seen))
    return found


def _say_tree(found: dict[str, Any], first: str, rest: str) -> None:
    say(f"{first}{found['version']}{' (deleted)' if found.get('is_deleted') else ''}")
    near = found.get("inputs") or found.get("consumers") or []
    for position, other in enumerate(near):
        is_last = position == len(near) - 1
        _say_tree(other, f"{rest}{'└── ' if is_last else '├── '}", f"{rest}{'    ' if is_last else '│   '}")


# --- one version ---------------------------------------------------------------------------------------------------


@version_app.command("children")
@here
def children(registry: "Registry", address: Address, as_json: AsJson = False) -> None:
    """List the children of a version."""
    dataset, ref = registry.at(address)
    _list(dataset.children(ref or MAIN), as_json)


@version_app.command("merge-base")
@here
def merge_base(
    registry: "Registry",
    dataset: DatasetName,
    left: Annotated[str, typer.Argument(autocompletion=target.complete_ref)],
    right: Annotated[str, typer.Argument(autocompletion=target.complete_ref)],
    as_json: AsJson = False,
) -> None:
    """List the best common ancestors of two refs."""
    _list(registry.dataset(dataset).merge_bases(left, right), as_json)


@version_app.command("consumers")
@here
def consumers(registry: "Registry", address: Address, as_json: AsJson = False) -> None:
    """List the versions of other datasets that were produced from a version."""
    found = registry.version(address).consumers
    if as_json:
        print_json([{"dataset_name": name, "version_number": number} for name, number in found])
        return
    for name, number in found:
        say(f"{name}@v{number}")


@version_app.command("delete")
@here
def delete_version(registry: "Registry", address: Address, yes: Yes = False) -> None:
    """Delete a version that no branch, tag or child references."""
    dataset, ref = registry.at(address)
    if ref is None:
        raise InputError(f"No version given: expected {dataset.name}@v3, for example.")
    version = dataset.version(ref)
    if confirmed(f"Delete {version}?", yes=yes):
        dataset.delete_version(f"v{version.number}")
        say(f"{version} deleted")


def _list(found: "list[Version]", as_json: bool) -> None:
    from dataset_registry.wire.datasets import VersionResponse

    if as_json:
        print_json([VersionResponse.of(version.record) for version in found])
        return
    for version in found:
        say(_line(version, []))
