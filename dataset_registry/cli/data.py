"""Commands about datasets, their versions and what is in them."""

import sys
from dataclasses import asdict
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from dataset_registry.cli import graph, target, tree
from dataset_registry.cli.output import (
    AsJson,
    Yes,
    confirmed,
    count_of,
    first_line,
    moment,
    print_facts,
    print_json,
    print_table,
    say,
    size,
    working,
)
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError, NotFound, UnreadableFile

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset
    from dataset_registry.registry import Registry
    from dataset_registry.version import Version


app = typer.Typer()
dataset_app = typer.Typer(no_args_is_help=True, help="Create, describe, rename and delete datasets.")
version_app = typer.Typer(no_args_is_help=True, help="Descendants and consumers of a version; delete a version.")
file_app = typer.Typer(no_args_is_help=True, help="Stored files by their hash.")

Address = Annotated[
    str,
    typer.Argument(
        help="A version: raw/flights (the head of main), raw/flights@v3, raw/flights@main~2 …",
        autocompletion=target.complete_address,
    ),
]
DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="The name of a dataset.", autocompletion=target.complete_dataset)
]
Message = Annotated[str | None, typer.Option("--message", "-m", help="The version message.")]


@app.command()
def init(
    context: typer.Context,
    folder: Annotated[
        str | None, typer.Argument(help="A new or empty folder; or pass -r, or --catalog and --store.")
    ] = None,
    registry: target.Folder = None,
    catalog: target.AnyCatalog = None,
    store: target.AnyStore = None,
) -> None:
    """Create a registry in a folder, or from a catalog and a store. An existing registry is left unchanged."""
    where: dict[str, Any] = {"registry": registry, "catalog": catalog, "store": store}
    where = target.chosen(context, where) if folder is None else {"registry": folder, "catalog": None, "store": None}
    try:
        with target.opened(**where) as found:
            say(f"{found.location} exists already")
    except NotFound:
        with target.opened(**where, create=True) as found:
            say(f"{found.location} created")


@app.command()
@here
def status(registry: "Registry", as_json: AsJson = False) -> None:
    """Show the registry's location, the current user, and its size."""
    found = registry.datasets()
    count = total = stored = 0
    for file in registry.files():
        stored += file.stored_size
        if file.form in ("whole", "ranges"):  # a table is its parts, and a pack is of no use by itself
            count, total = count + 1, total + file.size
    if as_json:
        frozen = registry.frozen
        print_json(
            {
                "location": registry.location,
                "frozen": asdict(frozen) if frozen else None,
                "actor": registry.actor,
                "datasets": len(found),
                "files": count,
                "bytes": total,
                "stored_bytes": stored,
            }
        )
        return
    print_facts(
        [
            ("registry", registry.location),
            ("you are", registry.actor),
            ("datasets", len(found)),
            ("files", f"{count:,}"),
        ]
    )
    print_facts([("content", size(total)), ("stored", size(stored))])


@app.command()
@here
def datasets(
    registry: "Registry",
    prefix: Annotated[str, typer.Argument(help="Only names with this prefix.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the datasets that you can read."""
    from dataset_registry.wire.datasets import DatasetResponse

    found = registry.datasets(prefix=prefix)
    if as_json:
        print_json([DatasetResponse.of(dataset.record) for dataset in found])
        return
    rows = [[d.id, d.name, first_line(d.description), d.record.created_by, moment(d.record.created_at)] for d in found]
    print_table(["id", "name", "description", "by", "made"], rows)


@app.command()
@here
def put(
    registry: "Registry",
    dataset: DatasetName,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES…",
            help="Files and folders to commit: a path, name=path for a component of that name, or - for standard input.",
        ),
    ],
    message: Message = None,
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")] = "main",
    kind: Annotated[str, typer.Option("--type", help="data, metadata, schema or overlay.")] = "data",
    format: Annotated[
        str | None, typer.Option("--format", help="csv, json, parquet, excel or binary. Default: by the file name.")
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read",
            metavar="OPTION=VALUE",
            help="How files are read: types.zip=string, delimiter=;, header=false, skip_rows=2, comment=#, encoding=latin-1, "
            "decimal=,, null_values=NA,-, date_format=%d.%m.%Y, sheet=Codes. Holds on in later versions; --read none drops it.",
        ),
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Remove the components that are not among the files.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what others committed in the meantime.")
    ] = False,
    trust_stat: Annotated[
        bool,
        typer.Option(
            "--trust-stat",
            help="Skip reading files whose size and times are unchanged since the last commit with this option.",
        ),
    ] = False,
    create: target.Create = False,
    as_json: AsJson = False,
) -> None:
    """Commit files as components of a new version; other components carry over. Creates the dataset if needed.

    One file alone is the component `data`. Of several, and of folders, each component has the file's relative path for a name;
    `get` writes the same files and folders.
    """
    from dataset_registry.wire.commits import CommitResponse

    named = tree.named_files(files)
    options = tree.read_options(read)
    with (
        working(f"committing to {dataset}"),
        registry.draft(dataset, branch, message=message, overwrite=overwrite, trust_stat=trust_stat) as draft,
    ):
        if sync:
            draft.clear()
        for name, source in named:
            value: Any = sys.stdin.buffer if source == "-" else Path(source)
            try:
                draft.add(name, value, type=kind, format=format, read=options)
            except (InputError, UnreadableFile) as error:
                raise type(error)(f"{source}: {error}", **error.fields) from error
    result = draft.result
    if as_json:
        print_json(CommitResponse.of(result))
    elif result.unchanged:
        say(f"{draft.version} on {branch} unchanged")
    else:
        new = f"{size(result.new_bytes)} new of {size(result.total_bytes)}"
        say(f"{draft.version} on {branch}, {(draft.version.digest or '')[:8]}: {new}")
    for schema in result.schemas.values():
        for note in (note for table in schema.tables for note in table.notes):
            say(f"note: {note}", err=True)


@app.command()
@here
def rm(
    registry: "Registry",
    dataset: DatasetName,
    components: Annotated[
        list[str], typer.Argument(metavar="COMPONENTS…", help="Component names; a trailing slash means a folder.")
    ],
    message: Message = None,
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")] = "main",
) -> None:
    """Remove components in a new version. Earlier versions keep them."""
    found = registry.dataset(dataset)
    there = [component.name for component in found.version(branch).components]
    names = dict.fromkeys(
        name
        for wanted in components
        for name in ([n for n in there if n.startswith(wanted)] if wanted.endswith("/") else [wanted])
    )
    if not names:
        raise InputError(f"{dataset} has nothing below {', '.join(components)} on {branch}.")
    with working(f"committing to {dataset}"), found.draft(branch, message=message) as draft:
        for name in names:
            draft.remove(name)
    say(f"{draft.version} on {branch}, {(draft.version.digest or '')[:8]}: removed {count_of(len(names), 'component')}")


@app.command()
@here
def get(
    registry: "Registry",
    address: Address,
    component: Annotated[str | None, typer.Argument(help="A component. Default: all of them.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", "-o", help="The folder to write to; - for standard output (one component).")
    ] = None,
    index: Annotated[int, typer.Option("--index", help="The index of the component.")] = 0,
) -> None:
    """Write a version's components as files, or one of them to standard output."""
    version = registry.version(address)
    if to == "-" or (to is None and not sys.stdout.isatty()):
        with version.open(component, index=index) as stream:
            _write(stream)
        return
    folder = to if to is not None else address.partition("@")[0].replace("/", "_")
    with working(f"writing {version}"):
        paths = version.checkout(folder, component=component)
    for path in paths:
        say(str(path))


def _write(stream: BinaryIO) -> None:
    copyfileobj(stream, cast(Any, sys.stdout.buffer), 1 << 20)
    sys.stdout.buffer.flush()


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
    found = dataset.tree()[:limit] if everything else dataset.log(ref or "main", limit=limit)
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
    """Show a version: author, inputs and components."""
    from dataset_registry.wire.commits import ProductionResponse
    from dataset_registry.wire.datasets import ComponentResponse, VersionResponse

    version = registry.version(address)
    productions = version.productions
    if as_json:
        shapes = [ComponentResponse.of(component) for component in version.components]
        made = [ProductionResponse.of(production) for production in productions]
        print_json({"version": VersionResponse.of(version.record), "components": shapes, "productions": made})
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
    captured = version.captured(component)
    if as_json:
        shapes = [CapturedResponse.of(*found) for found in captured]
        print_json(SchemaResponse(dataset_version_id=version.id, components=shapes))
        return
    for name, index, found in captured:
        for table in found.tables:
            label = name + (f"[{index}]" if index else "") + (f"/{table.name}" if table.name else "")
            say(f"{label}: {found.format}, {table.rows if table.rows is not None else '?'} rows")
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
    dataset: DatasetName,
    before: Annotated[str, typer.Argument(help="A ref.", autocompletion=target.complete_ref)],
    after: Annotated[str, typer.Argument(help="Another one.", autocompletion=target.complete_ref)] = "main",
    as_json: AsJson = False,
) -> None:
    """Show the changes between two versions: components, and the columns of their tables."""
    from dataset_registry.wire.datasets import ComparisonResponse

    found = registry.dataset(dataset).diff(before, after)
    if as_json:
        print_json(ComparisonResponse.of(found))
        return
    say(f"{dataset} v{found.before.number} -> v{found.after.number}")
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
    if not found.components:
        say("no difference")


# --- datasets as wholes --------------------------------------------------------------------------------------------


@dataset_app.command("create")
@here
def create_dataset(
    registry: "Registry",
    name: Annotated[str, typer.Argument(help="A path like raw/flights.")],
    description: Annotated[str | None, typer.Option("--description", "-d")] = None,
    as_json: AsJson = False,
) -> None:
    """Create an empty dataset. You become its admin."""
    _say(registry.create_dataset(name, description=description), "created", as_json)


@dataset_app.command("describe")
@here
def describe(
    registry: "Registry",
    dataset: DatasetName,
    description: Annotated[str, typer.Argument()],
    as_json: AsJson = False,
) -> None:
    """Change the description."""
    found = registry.dataset(dataset)
    found.update(description=description)
    _say(found, "changed", as_json)


@dataset_app.command("rename")
@here
def rename(
    registry: "Registry",
    dataset: DatasetName,
    name: Annotated[str, typer.Argument(help="The new name.")],
    as_json: AsJson = False,
) -> None:
    """Change the name; versions, branches and tags stay."""
    found = registry.dataset(dataset)
    found.rename(name)
    _say(found, f"renamed from {dataset}", as_json)


@dataset_app.command("delete")
@here
def delete_dataset(registry: "Registry", dataset: DatasetName, yes: Yes = False) -> None:
    """Delete a dataset with all its versions. The next collect deletes its files, unless they are referenced elsewhere."""
    found = registry.dataset(dataset)
    count = len(found.tree())
    if confirmed(f"Delete {dataset} with {count} versions?", yes=yes):
        say(f"{dataset} deleted with {found.delete()} versions")


def _say(dataset: "Dataset", what: str, as_json: bool) -> None:
    from dataset_registry.wire.datasets import DatasetResponse

    if as_json:
        print_json(DatasetResponse.of(dataset.record))
    else:
        say(f"{dataset.name} {what}")


# --- versions ------------------------------------------------------------------------------------------------------


@version_app.command("children")
@here
def children(registry: "Registry", address: Address, as_json: AsJson = False) -> None:
    """List the children of a version."""
    dataset, ref = registry.at(address)
    _list(dataset.children(ref or "main"), as_json)


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


# --- files ---------------------------------------------------------------------------------------------------------

Hash = Annotated[str, typer.Argument(help="The first digits of a SHA-256.")]


@file_app.command("show")
@here
def show_file(registry: "Registry", content_hash: Hash, as_json: AsJson = False) -> None:
    """Show a stored file: its hash, size and reference count."""
    from dataset_registry.wire.files import FileResponse

    found = registry.file(content_hash)
    if as_json:
        print_json(FileResponse.of(found))
        return
    print_facts(
        [
            ("hash", found.content_hash),
            ("size", f"{found.size:,} bytes"),
            ("named by", f"{found.reference_count} components"),
            ("format", found.format),
            ("compressed", found.compression_type),
            ("stored", moment(found.created_at)),
        ]
    )


@file_app.command("get")
@here
def get_file(
    registry: "Registry",
    content_hash: Hash,
    to: Annotated[str, typer.Option("--to", "-o", help="A file to write; - for standard output.")] = "-",
) -> None:
    """Write the content of a stored file."""
    with registry.open_file(content_hash) as stream:
        if to == "-":
            _write(stream)
            return
        with Path(to).open("xb") as target:
            copyfileobj(stream, target, 1 << 20)


@file_app.command("list")
@here
def list_files(registry: "Registry", as_json: AsJson = False) -> None:
    """List the stored files that you can read, oldest first."""
    from dataset_registry.wire.files import FileResponse

    found = list(registry.files())
    if as_json:
        print_json([FileResponse.of(file) for file in found])
        return
    rows = [[f.id, (f.content_hash or "")[:16], size(f.size), f.reference_count, f.format] for f in found]
    print_table(["id", "hash", "size", "named", "format"], rows)
