"""Maintenance commands: expire, collect, verify; and moving: copy, adopt."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataset_registry.cli.output import (
    AsJson,
    DryRun,
    Yes,
    confirmed,
    count_of,
    print_json,
    print_table,
    progress,
    say,
    size,
)
from dataset_registry.cli.target import here, opened
from dataset_registry.errors import InputError
from dataset_registry.model.retention import Policy, Rule, parse_duration

if TYPE_CHECKING:
    from dataset_registry.registry import Registry


DAMAGED = 3
"""The exit code of a verification that found damage."""

app = typer.Typer()

_OR_LOOK = ", or --dry-run to see the plan only"

OlderThan = Annotated[str, typer.Option("--older-than", help="Only files older than this: 12h, 7d; 0 for all.")]


# --- maintenance ---------------------------------------------------------------------------------------------------


@app.command()
@here
def expire(
    registry: "Registry",
    policy: Annotated[Path | None, typer.Option(help="A policy in a TOML file, instead of the options below.")] = None,
    datasets: Annotated[str, typer.Option(help="A pattern of datasets: 'raw/*'.")] = "*",
    branches: Annotated[str, typer.Option(help="A pattern of branches.")] = "*",
    last: Annotated[int, typer.Option("--keep-last", help="Keep this many of the newest versions.")] = 0,
    younger_than: Annotated[
        str | None, typer.Option("--keep-younger-than", help="Keep the versions of the last 30d, 12h …")
    ] = None,
    hourly: Annotated[int, typer.Option("--keep-hourly", help="Keep one an hour, for this many hours.")] = 0,
    daily: Annotated[int, typer.Option("--keep-daily", help="Keep one a day, for this many days.")] = 0,
    weekly: Annotated[int, typer.Option("--keep-weekly", help="Keep one a week, for this many weeks.")] = 0,
    monthly: Annotated[int, typer.Option("--keep-monthly", help="Keep one a month, for this many months.")] = 0,
    yearly: Annotated[int, typer.Option("--keep-yearly", help="Keep one a year, for this many years.")] = 0,
    keep_inputs: Annotated[bool, typer.Option("--keep-inputs", help="Keep the inputs of kept versions.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the versions that no rule keeps. Branch heads, tags and versions in use by runs always stay.

    Files are removed by the next collect.
    """
    if policy is not None:
        wanted = Policy.from_mapping(_toml(policy))
    else:
        age = parse_duration(younger_than) if younger_than is not None else None
        rule = Rule(datasets, branches, last, age, hourly, daily, weekly, monthly, yearly)
        wanted = Policy((rule,), keep_inputs)
    plan = registry.expire(wanted, dry_run=True)
    if as_json:
        print_json(
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
        print_table(["dataset", "keep", "expire", "kept because"], rows)
        say(f"{count_of(plan.versions, 'version')} to expire; the next collect frees {size(plan.bytes)}")
    if (
        not plan.versions
        or dry_run
        or not confirmed(f"Delete {count_of(plan.versions, 'version')}?", yes=yes, otherwise=_OR_LOOK)
    ):
        return
    with progress() as bars:
        done = registry.apply(plan, progress=bars)
    kept = f", {done.kept} are in use now and stay" if done.kept else ""
    say(f"{count_of(done.versions, 'version')} deleted{kept}", err=as_json)


@app.command()
@here
def freeze(
    registry: "Registry",
    reason: Annotated[str, typer.Option(help="The reason. It is shown on every write.")],
) -> None:
    """Make the registry read-only, for a migration or an incident. Reads continue; unfreeze ends it."""
    found = registry.freeze(reason)
    say(f"{registry.location} is read-only: {found.reason}")


@app.command()
@here
def unfreeze(registry: "Registry") -> None:
    """End the read-only mode of the registry."""
    registry.unfreeze()
    say(f"{registry.location} is writable again")


@app.command()
@here
def collect(
    registry: "Registry",
    older_than: OlderThan = "1d",
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Also remove objects unknown to the catalog (lists the whole store)."),
    ] = False,
    max_share: Annotated[
        float, typer.Option(help="The share of the store that a sweep may remove; 1 for all unknown objects.")
    ] = 0.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove the files that are no longer referenced. Safe to run concurrently with writers."""
    age = parse_duration(older_than)
    with progress() as bars:
        plan = registry.collect(older_than=age, dry_run=True)
        unknown = registry.sweep(older_than=age, max_share=max_share, dry_run=True, progress=bars) if sweep else None
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
        print_json(facts)
    else:
        rows = [["unreferenced files", len(plan.files), size(plan.bytes)]]
        rows += [["holds of dead writers", plan.expired_holds, ""], ["objects in the trash", plan.trashed, ""]]
        if unknown is not None:
            rows.append(["objects that the catalog does not know", len(unknown.objects), size(unknown.bytes)])
        print_table(["what", "how many", "bytes"], rows)
    is_empty = not (plan.files or plan.expired_holds or plan.trashed or (unknown and unknown.objects))
    if dry_run or not confirmed("Remove them?", yes=yes or is_empty, otherwise=_OR_LOOK):
        return
    with progress() as bars:
        done = [registry.apply(plan, progress=bars)]
        if unknown is not None:
            done.append(registry.apply(unknown, progress=bars))
    say(
        f"{count_of(sum(d.files for d in done), 'file')}, {count_of(sum(d.objects for d in done), 'object')} removed; "
        f"{size(sum(d.bytes for d in done))} freed",
        err=as_json,
    )


@app.command()
@here
def verify(
    registry: "Registry",
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash the content of every file.")] = False,
    share: Annotated[str | None, typer.Option(help="Read a share of the files: 2/7 is the second of seven.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair what is safe to repair; quarantine damaged files.")
    ] = False,
    older_than: OlderThan = "1d",
    as_json: AsJson = False,
) -> None:
    """Check every digest and object; with --deep, read every byte. Writers continue.

    The exit code is 3 if damage was found, 0 if nothing or only leftovers were found.
    """
    from dataset_registry.operations.verify import parse_share

    part = parse_share(share) if share is not None else deep
    with progress() as bars:
        found = registry.verify(deep=part, repair=repair, older_than=parse_duration(older_than), progress=bars)
    if as_json:
        listed = [{"kind": f.kind, "what": f.what, "repaired": f.repaired, "repair": f.repair} for f in found.findings]
        print_json({"files": found.files, "bytes_read": found.bytes_read, "waiting": found.waiting, "findings": listed})
    else:
        for finding in found.findings[:200]:
            say(f"{finding.kind}: {finding.what}{' (repaired)' if finding.repaired else ''}")
        if len(found.findings) > 200:
            say(f"and {len(found.findings) - 200} more (see --json)")
        for kind, remedy in {f.kind: f.repair for f in found.findings if not f.repaired}.items():
            say(f"repair {kind}: {remedy}")
        read = f", {size(found.bytes_read)} of content read" if part else ""
        left = sum(not finding.repaired for finding in found.findings)
        say(
            f"{count_of(found.files, 'file')} checked{read}: "
            + (f"{count_of(left, 'finding')} left" if left else "no findings")
        )
        if found.waiting:
            say(f"{count_of(found.waiting, 'legacy file')} to adopt: dataset-registry adopt")
    if found.damage:
        raise typer.Exit(DAMAGED)


# --- moving --------------------------------------------------------------------------------------------------------


@app.command()
@here
def copy(
    registry: "Registry",
    to: Annotated[str | None, typer.Option("--to", help="The folder of the other registry.")] = None,
    to_catalog: Annotated[str | None, typer.Option(help="The catalog of the other registry, with --to-store.")] = None,
    to_store: Annotated[str | None, typer.Option(help="The store of the other registry.")] = None,
    datasets: Annotated[list[str] | None, typer.Option("--dataset", help="Patterns of the datasets to copy.")] = None,
    refs: Annotated[
        list[str] | None, typer.Option("--ref", help="Copy only the histories of these branches and tags.")
    ] = None,
    compress: Annotated[bool, typer.Option("--compress", help="Compress CSV and JSON files in the copy.")] = False,
    create_target: Annotated[
        bool, typer.Option("--create", help="Create the other registry if there is none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy datasets with their histories to another registry. Only missing data is transferred; can be repeated."""
    actor = None if registry.is_owner else registry.actor
    with (
        opened(to, to_catalog, to_store, actor, otherwise=_WHERE_TO, compress=compress, create=create_target) as target,
        progress() as bars,
    ):
        done = registry.copy_to(target, datasets=datasets or ("*",), refs=refs or None, progress=bars)
    if as_json:
        print_json(asdict(done))
        return
    for note in done.notes:
        say(f"note: {note}", err=True)
    say(
        f"{count_of(done.datasets, 'dataset')}: {count_of(done.versions, 'version')} copied, {done.present:,} present; "
        f"{count_of(done.files, 'file')}, {size(done.bytes)} copied"
    )


@app.command()
@here
def adopt(
    registry: "Registry",
    dry_run: DryRun = False,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Adopt files whose size differs from the catalog, too.")
    ] = False,
    give_up: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Declare this file lost, if it cannot be read. Can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Adopt the files of a legacy catalog into the store: hashed and deduplicated. Can be stopped and repeated.

    The exit code is 3 if some files could not be adopted; all others were.
    """
    plan = registry.adopt(dry_run=True)
    if dry_run:
        if as_json:
            print_json(asdict(plan))
            return
        rows = [["kept inline in the catalog", plan.inline], ["under paths", plan.paths]]
        print_table(["legacy files", "count"], [*rows, ["of which cannot be read", len(plan.unreadable)]])
        for reason in list(plan.unreadable.values())[:20]:
            say(reason)
        say(f"{size(plan.bytes)} to read")
        return
    with progress() as bars:
        done = registry.adopt(any_size=any_size, give_up=give_up or (), progress=bars)
    if as_json:
        print_json(asdict(done))
    else:
        say(
            f"{done.files} files adopted, {done.duplicates} of them duplicates; {size(done.bytes)} stored; "
            f"{done.versions} versions have their digest now"
        )
        if done.given_up:
            say(f"{count_of(done.given_up, 'file')} declared lost")
        for difference in done.differences.values():
            say(difference, err=True)
        for reason in done.failed.values():
            say(f"not adopted: {reason}", err=True)
    if done.failed:
        raise typer.Exit(DAMAGED)


_WHERE_TO = "No target given: pass --to FOLDER, or --to-catalog and --to-store."


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"The policy {path} cannot be read: {error}.") from error
