"""The command line: reads its options, calls one function, prints. Nothing here decides anything."""

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dataset_registry.catalog import Catalog
from dataset_registry.errors import InputError, RegistryError
from dataset_registry.model.retention import Policy, Rule, parse_duration
from dataset_registry.operations.progress import Progress, silent
from dataset_registry.registry import Registry

CATALOG_VARIABLE = "DATASET_REGISTRY_CATALOG"
STORE_VARIABLE = "DATASET_REGISTRY_STORE"
FOLDER_VARIABLE = "DATASET_REGISTRY"

DAMAGED = 3
"""The exit code of a verification that found damage."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="git for the datasets that a Dagster pipeline materializes."
)
db = typer.Typer(no_args_is_help=True, help="The catalog's tables: which revision they have, and how to change it.")
app.add_typer(db, name="db")

CatalogOption = Annotated[
    str,
    typer.Option(
        "--catalog",
        envvar=CATALOG_VARIABLE,
        help="The catalog's URL: postgresql+psycopg://user:password@host/database or sqlite:///folder/catalog.sqlite.",
    ),
]
Folder = Annotated[
    str | None,
    typer.Option("--registry", "-r", envvar=FOLDER_VARIABLE, help="The folder of an embedded registry."),
]
AnyCatalog = Annotated[
    str | None, typer.Option("--catalog", envvar=CATALOG_VARIABLE, help="The catalog's URL, with --store.")
]
AnyStore = Annotated[
    str | None,
    typer.Option("--store", envvar=STORE_VARIABLE, help="The store: a folder, s3://bucket/prefix, gs://… or az://…"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OlderThan = Annotated[
    str, typer.Option("--older-than", help="Leave alone what is younger than this: 12h, 7d; 0 for nothing.")
]


@app.callback()
def root() -> None:
    """Keeps the group a group."""


# --- the catalog's tables ------------------------------------------------------------------------------------------


@db.command()
def current(catalog: CatalogOption) -> None:
    """Print the revision that the catalog has."""
    with closing(Catalog(catalog)) as opened:
        typer.echo(opened.revision() or "no tables yet")


@db.command()
def upgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
) -> None:
    """Create the catalog's tables, or bring them to the newest revision, in one transaction."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.upgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision()}")


@db.command()
def downgrade(
    catalog: CatalogOption,
    revision: Annotated[str, typer.Argument(help="The revision to go back to, or 'base' for an empty database.")],
) -> None:
    """Take the tables back to an older revision. Refuses, naming the rows, where that would lose data."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        before = opened.revision()
        migrate.downgrade(opened, revision)
        typer.echo(f"{opened.address}: {before or 'no tables'} -> {opened.revision() or 'no tables'}")


@db.command()
def check(catalog: CatalogOption) -> None:
    """Compare the database with the tables that this package expects (`alembic check`)."""
    from dataset_registry.catalog import migrate

    with closing(Catalog(catalog)) as opened:
        migrate.check(opened)
        typer.echo(f"{opened.address}: revision {opened.revision()}, as this package expects it")


# --- keeping house -------------------------------------------------------------------------------------------------


@app.command()
def expire(
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    policy: Annotated[Path | None, typer.Option(help="A policy in a TOML file, instead of the options below.")] = None,
    datasets: Annotated[str, typer.Option(help="The datasets it is for, as a pattern: 'raw/*'.")] = "*",
    branches: Annotated[str, typer.Option(help="The branches whose histories are judged, as a pattern.")] = "*",
    last: Annotated[int, typer.Option("--keep-last", help="Keep the newest versions.")] = 0,
    younger_than: Annotated[
        str | None, typer.Option("--keep-younger-than", help="Keep those of the last 30d, 12h …")
    ] = None,
    daily: Annotated[int, typer.Option("--keep-daily", help="Keep one a day, for so many days.")] = 0,
    weekly: Annotated[int, typer.Option("--keep-weekly", help="Keep one a week, for so many weeks.")] = 0,
    monthly: Annotated[int, typer.Option("--keep-monthly", help="Keep one a month, for so many months.")] = 0,
    yearly: Annotated[int, typer.Option("--keep-yearly", help="Keep one a year, for so many years.")] = 0,
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="Keep what kept versions were made from.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the versions that no rule keeps. Heads of branches, tags and what runs use always stay.

    Files are removed by the next collect.
    """
    if policy is not None:
        wanted = Policy.from_mapping(_toml(policy))
    else:
        age = parse_duration(younger_than) if younger_than is not None else None
        rule = Rule(datasets, branches, last, age, daily, weekly, monthly, yearly)
        wanted = Policy((rule,), keep_inputs)
    with _open(registry, catalog, store) as opened:
        plan = opened.expire(wanted, dry_run=True)
        if as_json:
            _print_json(
                {
                    "versions": plan.versions,
                    "bytes": plan.bytes,
                    "datasets": {
                        found.dataset.name: {
                            "expire": [version.number for version in found.expiring],
                            "keep": {str(number): reason for number, reason in sorted(found.kept.items())},
                        }
                        for found in plan.datasets
                    },
                }
            )
        else:
            rows = [[name, kept, gone, why] for name, kept, gone, why in plan.summary() if gone or kept]
            _print_table(["dataset", "keep", "expire", "kept because"], rows)
            typer.echo(f"{plan.versions} versions expire; {_size(plan.bytes)} are free after the next collect")
        if not plan.versions or dry_run or not _confirmed(f"Delete {plan.versions} versions?", yes=yes):
            return
        with _progress() as progress:
            done = opened.apply(plan, progress=progress)
        kept = f", {done.kept} came to be needed and stay" if done.kept else ""
        typer.echo(f"{done.versions} versions deleted{kept}", err=as_json)


@app.command()
def collect(
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    older_than: OlderThan = "1d",
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Also remove objects that the catalog does not know (lists the whole store)."),
    ] = False,
    max_share: Annotated[
        float, typer.Option(help="The share of the store that a sweep may remove; 1 for whatever is unknown.")
    ] = 0.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove the files that nothing names any more. Safe beside any number of writers."""
    age = parse_duration(older_than)
    with _open(registry, catalog, store) as opened, _progress() as progress:
        plan = opened.collect(older_than=age, dry_run=True)
        unknown = opened.sweep(older_than=age, max_share=max_share, dry_run=True, progress=progress) if sweep else None
    facts: dict[str, Any] = {
        "files": len(plan.files),
        "bytes": plan.bytes,
        "expired_holds": plan.expired_holds,
        "trash": plan.trashed,
    }
    if unknown is not None:
        facts |= {
            "unknown_objects": len(unknown.objects),
            "unknown_bytes": unknown.bytes,
            "suspicion": unknown.suspicion,
        }
    if as_json:
        _print_json(facts)
    else:
        rows = [["files that nothing names", len(plan.files), _size(plan.bytes)]]
        rows += [["holds of dead writers", plan.expired_holds, ""], ["objects in the trash", plan.trashed, ""]]
        if unknown is not None:
            rows.append(["objects that the catalog does not know", len(unknown.objects), _size(unknown.bytes)])
        _print_table(["what", "how many", "bytes"], rows)
    if dry_run or not _confirmed("Remove them?", yes=yes):
        return
    with _open(registry, catalog, store) as opened, _progress() as progress:
        done = [opened.apply(plan, progress=progress)]
        if unknown is not None:
            done.append(opened.apply(unknown, progress=progress))
    typer.echo(
        f"{sum(d.files for d in done)} files, {sum(d.objects for d in done)} objects removed; "
        f"{_size(sum(d.bytes for d in done))} freed",
        err=as_json,
    )


@app.command()
def verify(
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash the content of every file.")] = False,
    share: Annotated[
        str | None, typer.Option(help="Read a share of the files: 2/7 is the second of seven, say on Tuesdays.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is safe, put what is damaged into quarantine.")
    ] = False,
    older_than: OlderThan = "1d",
    as_json: AsJson = False,
) -> None:
    """Check every digest, look for every object, on request read every byte. Writers go on meanwhile.

    The exit code is 3 when something is damaged, 0 when nothing was found but leftovers.
    """
    from dataset_registry.operations.verify import parse_share

    part = parse_share(share) if share is not None else deep
    with _open(registry, catalog, store) as opened, _progress() as progress:
        found = opened.verify(deep=part, repair=repair, older_than=parse_duration(older_than), progress=progress)
    if as_json:
        listed = [{"kind": f.kind, "what": f.what, "mended": f.mended, "repair": f.repair} for f in found.findings]
        _print_json(
            {"files": found.files, "bytes_read": found.bytes_read, "waiting": found.waiting, "findings": listed}
        )
    else:
        for finding in found.findings[:200]:
            typer.echo(f"{finding.kind}: {finding.what}{' (mended)' if finding.mended else ''}")
        if len(found.findings) > 200:
            typer.echo(f"and {len(found.findings) - 200} more (see --json)")
        for kind, remedy in {f.kind: f.repair for f in found.findings if not f.mended}.items():
            typer.echo(f"what to do about {kind}: {remedy}")
        read = f", {_size(found.bytes_read)} of content read" if part else ""
        left = sum(not finding.mended for finding in found.findings)
        typer.echo(f"{found.files} files looked for{read}: " + (f"{left} findings left" if left else "all is well"))
        if found.waiting:
            typer.echo(f"{found.waiting} legacy files wait for: dataset-registry adopt")
    if found.damage:
        raise typer.Exit(DAMAGED)


# --- moving --------------------------------------------------------------------------------------------------------


@app.command()
def copy(
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    to: Annotated[str | None, typer.Option("--to", help="The folder of the other registry.")] = None,
    to_catalog: Annotated[str | None, typer.Option(help="The catalog of the other registry, with --to-store.")] = None,
    to_store: Annotated[str | None, typer.Option(help="The store of the other registry.")] = None,
    datasets: Annotated[list[str] | None, typer.Option("--dataset", help="Patterns of the datasets to copy.")] = None,
    refs: Annotated[
        list[str] | None, typer.Option("--ref", help="Copy only what these branches and tags reach.")
    ] = None,
    compress: Annotated[bool, typer.Option("--compress", help="Compress CSV and JSON files in the copy.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy datasets with their histories into another registry. Only what is missing there travels; can be repeated."""
    with (
        _open(registry, catalog, store) as source,
        _open(to, to_catalog, to_store, otherwise=_WHERE_TO, compress=compress) as target,
        _progress() as progress,
    ):
        done = source.copy_to(target, datasets=datasets or ("*",), refs=refs or None, progress=progress)
    if as_json:
        _print_json(asdict(done))
        return
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(
        f"{done.datasets} datasets: {done.versions} versions copied, {done.present} there already; "
        f"{done.files} files, {_size(done.bytes)} moved"
    )


@app.command()
def adopt(
    registry: Folder = None,
    catalog: AnyCatalog = None,
    store: AnyStore = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take the files of a legacy catalog into the store: hashed, deduplicated, counted. Can be stopped and repeated."""
    with _open(registry, catalog, store) as opened:
        plan = opened.adopt(dry_run=True)
        if dry_run:
            if as_json:
                _print_json(asdict(plan))
                return
            rows = [["kept inline in the catalog", plan.inline], ["under paths", plan.paths]]
            _print_table(["legacy files", "how many"], [*rows, ["of which cannot be read", len(plan.unreadable)]])
            for number, path in list(plan.unreadable.items())[:20]:
                typer.echo(f"file {number}: {path} cannot be read")
            typer.echo(f"{_size(plan.bytes)} to read")
            return
        with _progress() as progress:
            done = opened.adopt(progress=progress)
    if as_json:
        _print_json(asdict(done))
    else:
        typer.echo(
            f"{done.files} files adopted, {done.duplicates} of them duplicates; {_size(done.bytes)} stored; "
            f"{done.versions} versions have their digest now"
        )
        for number, reason in done.failed.items():
            typer.echo(f"file {number} could not be read: {reason}", err=True)
    if done.failed:
        raise typer.Exit(DAMAGED)


# --- what the commands share ---------------------------------------------------------------------------------------


_WHICH = "Say which registry: --registry FOLDER, or --catalog and --store."
_WHERE_TO = "Say where to copy to: --to FOLDER, or --to-catalog and --to-store."


@contextmanager
def _open(
    folder: str | None, catalog: str | None, store: str | None, *, otherwise: str = _WHICH, compress: bool = False
) -> Iterator[Registry]:
    if folder is None and (catalog is None or store is None):
        raise InputError(otherwise)
    with Registry.open(folder, catalog=catalog, store=store, compression="zstd" if compress else None) as opened:
        yield opened


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _print_table(columns: list[str], rows: list[list[Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[position], int) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120).print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _confirmed(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is nobody to ask: pass --yes to do it, or --dry-run to see the plan only.")
    return typer.confirm(question)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The policy {path} cannot be read: {error}.") from error


def _size(count: int) -> str:
    """Bytes in the unit that reads best."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def main() -> None:
    """Run the command line; an error that a user can act on is printed without a traceback."""
    try:
        app()
    except RegistryError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from (error if os.environ.get("DATASET_REGISTRY_DEBUG") else None)
