"""Commands that move data in and out: put, rm, get, checkout, file."""

import sys
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from dataset_registry.cli import target, tree
from dataset_registry.cli.arguments import Address, DatasetName, Message
from dataset_registry.cli.output import (
    AsJson,
    count_of,
    moment,
    print_facts,
    print_json,
    print_table,
    say,
    size,
    transferring,
    working,
)
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError, RegistryError, UnreadableFile
from dataset_registry.model.names import MAIN

if TYPE_CHECKING:
    from dataset_registry.registry import Registry


app = typer.Typer()
file_app = typer.Typer(no_args_is_help=True, help="Stored files by their hash.")


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
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")] = MAIN,
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
            "decimal=,, null_values=NA,-, date_format=%d.%m.%Y, sheet=Codes. Later versions keep them; --read none removes them.",
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

    A single file becomes the component `data`. With several files or a folder, each component is named after the file's
    relative path; `get` writes the same files and folders.
    """
    from dataset_registry.wire.commits import CommitResponse

    named = tree.named_files(files)
    options = tree.read_options(read)
    try:
        with (
            transferring(f"committing to {dataset}") as progress,
            registry.draft(
                dataset, branch, message=message, overwrite=overwrite, trust_stat=trust_stat, progress=progress
            ) as draft,
        ):
            if sync:
                draft.clear()
            for name, source in named:
                value: Any = sys.stdin.buffer if source == "-" else Path(source)
                try:
                    draft.add(name, value, type=kind, format=format, read=options)
                except (InputError, UnreadableFile) as error:
                    raise type(error)(f"{source}: {error}", **error.fields) from error
    except KeyboardInterrupt:
        say(
            f"Interrupted: nothing was committed to {dataset}.",
            err=True,
        )
        raise typer.Exit(130) from None
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
    branch: Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")] = MAIN,
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
        raise InputError(f"{dataset} has no components under {', '.join(components)} on {branch}.")
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
    with transferring(f"writing {version}") as progress:
        paths = version.checkout(folder, component=component, progress=progress)
    for path in paths:
        say(str(path))


@app.command()
@here
def checkout(
    registry: "Registry",
    address: Address,
    folder: Annotated[str | None, typer.Argument(help="An empty folder. Default: the dataset's name.")] = None,
) -> None:
    """Write all components of a version to a folder."""
    version = registry.version(address)
    if folder is not None:
        _check_is_no_ref(registry, address, folder)
    with transferring(f"writing {version}") as progress:
        paths = version.checkout(folder or version.dataset.replace("/", "_"), progress=progress)
    for path in paths:
        say(str(path))


def _check_is_no_ref(registry: "Registry", address: str, folder: str) -> None:
    """Raise `InputError` if the folder is named like a ref of the dataset: `git checkout` would take it for one."""
    try:
        registry.version(f"{address}@{folder}")
    except RegistryError:
        return
    raise InputError(
        f"{folder!r} is a ref of {address}. For that version: dataset-registry checkout {address}@{folder}. "
        f"For a folder of that name: ./{folder}"
    )


def _write(stream: BinaryIO) -> None:
    copyfileobj(stream, cast(Any, sys.stdout.buffer), 1 << 20)
    sys.stdout.buffer.flush()


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
            ("references", count_of(found.reference_count or 0, "component")),
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
    print_table(["id", "hash", "size", "references", "format"], rows)
