"""Commands that bring histories together: merge, conflicts, resolve, cherry-pick, revert; and that edit rows: append, upsert,
delete-rows."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_registry.cli import target
from dataset_registry.cli.arguments import DatasetName, Message
from dataset_registry.cli.output import AsJson, DryRun, count_of, print_json, say, working
from dataset_registry.cli.target import here
from dataset_registry.errors import InputError
from dataset_registry.model.manifest import component_label
from dataset_registry.model.merge_plans import MergeKind, MergePlan
from dataset_registry.model.names import DATA, MAIN

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset
    from dataset_registry.registry import Registry
    from dataset_registry.version import Version

app = typer.Typer()

Ref = Annotated[str, typer.Argument(help="A branch, a tag or a version.", autocompletion=target.complete_ref)]
Into = Annotated[str, typer.Option("--into", "-b", help="The branch to change.", autocompletion=target.complete_ref)]
Strategy = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="STRATEGY",
        help="ours, theirs, union, newest or fail (default); for some conflicts: theirs:component=part/*,column=price. The "
        "last one that applies wins.",
    ),
]
Component = Annotated[str, typer.Option("--component", "-c", help="The component.")]
Kind = Annotated[str, typer.Option("--how", help="merge, cherry-pick or revert.")]
PlanId = Annotated[str | None, typer.Option("--plan", help="The id of the plan whose conflicts are resolved.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A file. Default: standard output.")]
RowFormat = Annotated[str, typer.Option("--format", help="csv, json, parquet or arrow.")]
Branch = Annotated[str, typer.Option("--branch", "-b", help="The branch to commit to.")]


@app.command()
@here
def merge(
    registry: "Registry",
    dataset: DatasetName,
    ref: Ref,
    into: Into = MAIN,
    strategy: Strategy = None,
    fast_forward: Annotated[
        bool, typer.Option("--ff/--no-ff", help="Move the branch forward where it is only behind.")
    ] = True,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge a ref into a branch: components, columns, rows and cells. Conflicts change nothing and exit with 5."""
    options = {"strategy": strategy or "fail", "fast_forward": fast_forward}
    _merged(registry.dataset(dataset), "merge", ref, into, message, options, dry_run=dry_run, as_json=as_json)


@app.command("cherry-pick")
@here
def cherry_pick(
    registry: "Registry",
    dataset: DatasetName,
    ref: Ref,
    into: Into = MAIN,
    strategy: Strategy = None,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Apply the changes of one version to a branch."""
    options = {"strategy": strategy or "fail"}
    _merged(registry.dataset(dataset), "cherry-pick", ref, into, message, options, dry_run=dry_run, as_json=as_json)


@app.command()
@here
def revert(
    registry: "Registry",
    dataset: DatasetName,
    ref: Ref,
    into: Into = MAIN,
    strategy: Strategy = None,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Undo the changes of one version on a branch."""
    options = {"strategy": strategy or "fail"}
    _merged(registry.dataset(dataset), "revert", ref, into, message, options, dry_run=dry_run, as_json=as_json)


@app.command()
@here
def conflicts(
    registry: "Registry",
    dataset: DatasetName,
    ref: Ref,
    into: Into = MAIN,
    component: Component = DATA,
    how: Kind = "merge",
    strategy: Strategy = None,
    format: RowFormat = "csv",
    output: Output = None,
) -> None:
    """Write the rows of a component that are in conflict in a merge.

    Fill in the column `take` (ours, theirs, base, drop), or add columns with the values to take, and run resolve.
    """
    found = registry.dataset(dataset)
    plan = found.plan_merge(ref, into, how=_kind(how), strategy=strategy or "fail")
    rows = found.conflicts(ref, into, component, how=_kind(how), strategy=strategy or "fail")
    write_rows(rows.to_reader(), format, output)
    if output is not None:
        say(f"{count_of(rows.num_rows, 'row')} of plan {plan.id} in {output}. Fill in the column take, then run:")
        say(f"dataset-registry resolve {dataset} {ref} {output} --into {into} --component {component} --plan {plan.id}")


@app.command()
@here
def resolve(
    registry: "Registry",
    dataset: DatasetName,
    ref: Ref,
    file: Annotated[Path, typer.Argument(help="Resolved rows: a CSV, JSON, Excel or Parquet file from conflicts.")],
    into: Into = MAIN,
    component: Component = DATA,
    how: Kind = "merge",
    plan: PlanId = None,
    strategy: Strategy = None,
    message: Message = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge with resolutions of the conflicts of one component.

    If the branch moved since the rows were written, those whose values changed are conflicts again.
    """
    options = {"strategy": strategy or "fail", "resolutions": {component: file}, "plan": plan}
    _merged(registry.dataset(dataset), _kind(how), ref, into, message, options, dry_run=dry_run, as_json=as_json)


def _kind(how: str) -> MergeKind:
    match how:
        case "merge" | "cherry-pick" | "revert":
            return how
    raise InputError(f"Unknown --how {how!r}. Use merge, cherry-pick or revert.", how=how)


def _merged(
    dataset: "Dataset",
    how: MergeKind,
    ref: str,
    into: str,
    message: str | None,
    options: dict[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Plan a merge, or carry it out, and print it."""
    from dataset_registry.wire.datasets import VersionResponse
    from dataset_registry.wire.merges import MergePlanResponse

    with working(f"{how} of {ref} into {into}"):
        plan = dataset.plan_merge(ref, into, how=how, **options)
    version: Version | None = None
    if not dry_run:
        call: Any = {"merge": dataset.merge, "cherry-pick": dataset.cherry_pick, "revert": dataset.revert}[how]
        with working(f"{how} of {ref} into {into}"):
            version = call(ref, into, message=message, **options)
    if as_json:
        head = VersionResponse.of(version.record) if version else None
        print_json({"merge": MergePlanResponse.of(plan), "version": head})
        return
    print_plan(plan)
    if version is not None:
        verb = {"up to date": "is", "fast-forward": "moved to"}.get(plan.outcome, "is now")
        say(f"{into} {verb} {version}, {(version.digest or '')[:8]}")


def print_plan(plan: MergePlan) -> None:
    """Print the plan of a merge: the versions, the components, the conflicts."""
    ours = f"v{plan.ours.number}" if plan.ours else "a new branch"
    bases = f", common ancestor {', '.join(f'v{number}' for number in plan.bases)}" if plan.bases else ""
    say(f"{plan.dataset}: v{plan.theirs.number} into {plan.branch} ({ours}{bases}): {plan.outcome}")
    for c in plan.components:
        sign = {"added": "+", "removed": "-", "replaced": "~", "merged": "~"}[c.action]
        rows = f": {counts(c.rows_added, c.rows_removed, c.rows_changed)}" if c.action == "merged" else ""
        say(f"{sign} {component_label(c.name, c.index)} {c.action}{rows}")
        for column in c.dropped:
            say(f"  - {column}")
        for column in c.retyped:
            say(f"  ~ {column} (type)")
    for impact in plan.impact:
        say(f"? {impact}")
    for conflict in plan.conflicts:
        say(f"! {conflict}")
    if plan.conflicts:
        say(f"{count_of(len(plan.conflicts), 'conflict')} (plan {plan.id})")


def counts(added: int, removed: int, changed: int) -> str:
    """Counts of rows as in a diff: `+1 −2 Δ3 rows`."""
    return f"+{added:,} −{removed:,} Δ{changed:,} rows"


def write_rows(reader: Any, format: str, output: Path | None) -> None:
    """Write a stream of rows to a file or to standard output."""
    from dataset_registry.tabular.encoded import encoded

    pieces = encoded(reader, format)
    if output is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    with output.open("wb") as file:
        for piece in pieces:
            file.write(piece)


# --- rows --------------------------------------------------------------------------------------------------------------

Rows = Annotated[Path, typer.Argument(help="The rows: a CSV, JSON, Excel or Parquet file.")]
Key = Annotated[
    list[str] | None, typer.Option("--key", "-k", help="A column of the key, for a table that is created. Repeatable.")
]


@app.command()
@here
def append(
    registry: "Registry",
    dataset: DatasetName,
    file: Rows,
    component: Component = DATA,
    key: Key = None,
    branch: Branch = MAIN,
    message: Message = None,
    create: target.Create = False,
) -> None:
    """Add the rows of a file to a table, in a new version. Creates the dataset and the table if needed."""
    with working(f"appending to {dataset}"), registry.draft(dataset, branch, message=message) as draft:
        draft.append(component, file, key=key or ())
    _edited(draft.version, branch)


@app.command()
@here
def upsert(
    registry: "Registry",
    dataset: DatasetName,
    file: Rows,
    component: Component = DATA,
    key: Key = None,
    branch: Branch = MAIN,
    message: Message = None,
    create: target.Create = False,
) -> None:
    """Replace the rows of a table that have the same key as rows of a file, and insert the others, in a new version."""
    with working(f"upserting into {dataset}"), registry.draft(dataset, branch, message=message) as draft:
        draft.upsert(component, file, key=key or ())
    _edited(draft.version, branch)


@app.command("delete-rows")
@here
def delete_rows(
    registry: "Registry",
    dataset: DatasetName,
    file: Annotated[
        Path | None, typer.Argument(help="Rows to delete: a file with their keys, or other columns.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="An SQL condition in place of a file, such as: price < 0")
    ] = None,
    component: Component = DATA,
    branch: Branch = MAIN,
    message: Message = None,
) -> None:
    """Delete rows of a table in a new version. Earlier versions keep them."""
    found = registry.dataset(dataset)
    with working(f"deleting rows of {dataset}"), found.draft(branch, message=message) as draft:
        draft.delete_rows(component, file, where=where)
    _edited(draft.version, branch)


def _edited(version: "Version", branch: str) -> None:
    say(f"{version} on {branch}, {(version.digest or '')[:8]}")
