"""`make demo`: the example pipeline on `main`, again unchanged, on a branch with a changed step, and tagged by its schedule."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import dagster as dg
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from dagster_assets.analytics import MONTHS, DelayConfig, carrier_delays, daily_departures
from dagster_assets.definitions import HOME, defs, nightly_tags, registry
from dagster_assets.reports import punctuality
from dataset_registry import Registry, Version
from dataset_registry.dagster_io import publish_run
from dataset_registry.errors import Tainted

BRANCH = "late-after-30"
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
console = Console(width=int(os.environ.get("COLUMNS", "118")), highlight=False)


def main() -> None:
    """Run the story from the start, in a fresh folder; deliveries that are there already are used again."""
    started = perf_counter()
    for name in ("registry", "dagster_home"):
        shutil.rmtree(HOME / name, ignore_errors=True)
    home = HOME / "dagster_home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        number = tell(instance)
    console.print(
        f"\nDone in {perf_counter() - started:.0f} s. See the same data in the Dagster UI:  [bold]make dev[/]"
    )
    console.print(f"and the review in the pages of the registry:  [bold]make ui PAGE=/reviews/{number}[/]")


def tell(instance: dg.DagsterInstance) -> int:
    """The story, on an instance. Returns the number of the review."""
    heading("1. Materialize everything on main")
    runs = materialize_all(instance)
    console.print(summary(runs))
    opened = registry.registry
    heads(opened)

    heading("2. Again, with nothing changed")
    again = materialize_all(instance)
    console.print(summary(again))

    heading(f"3. On the branch {BRANCH}: a departure is late after 30 minutes instead of 15")
    run = materialize(
        instance,
        [carrier_delays.key, punctuality.key],
        tags={"registry/branch": BRANCH},
        ops={carrier_delays.op.name: {"config": DelayConfig(late_after_minutes=30).model_dump()}},
    )
    console.print(summary([run]))

    heading("4. Tags, by the schedule's job")
    tags(instance)

    history(opened, "analytics/carrier_delays")
    schemas(opened, "raw/flights", "clean/flights")
    savings(opened, [*runs, *again, run])
    lineage(opened.version(f"reports/punctuality@{BRANCH}"), opened)
    pull_request(instance)
    return review(opened)


def materialize_all(instance: dg.DagsterInstance) -> list[dg.ExecuteInProcessResult]:
    """Everything but the monthly asset in one run, then its twelve months in another."""
    everything = defs.resolve_asset_graph().materializable_asset_keys
    first = materialize(instance, sorted(everything - {daily_departures.key}))
    keys = MONTHS.get_partition_keys()
    months = materialize(
        instance,
        [daily_departures.key],
        tags={"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]},
    )
    return [first, months]


def materialize(
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    *,
    tags: dict[str, str] | None = None,
    ops: dict[str, Any] | None = None,
    may_fail: bool = False,
) -> dg.ExecuteInProcessResult:
    """Materialize assets in this process."""
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        tags=tags,
        run_config={"ops": ops or {}, **(SILENT if may_fail else QUIET)},
        raise_on_error=not may_fail,
    )


def summary(runs: Sequence[dg.ExecuteInProcessResult]) -> str:
    """What runs did, from the metadata of their materializations (one a dataset: partitions repeat theirs)."""
    by_dataset = {m.asset_key: m.metadata for run in runs for m in materializations(run)}
    new = sum("(unchanged)" not in str(m["registry/version"].value) for m in by_dataset.values())
    stored = sum(int(str(m["registry/new_bytes"].value)) for m in by_dataset.values())
    submitted = sum(map(submitted_bytes, runs))
    branch = {str(m["registry/branch"].value) for m in by_dataset.values()}
    checks = [check.passed for run in runs for check in run.get_asset_check_evaluations()]
    checked = f", {sum(checks)} of {len(checks)} checks passed" if checks else ""
    return (
        f"{len(by_dataset)} assets materialized on {', '.join(branch)}: [bold]{new} new versions, {size(stored)} new[/] "
        f"of {size(submitted)} submitted{checked}"
    )


def materializations(run: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    """The materializations of a run."""
    return [event.step_materialization_data.materialization for event in run.get_asset_materialization_events()]


def submitted_bytes(run: dg.ExecuteInProcessResult) -> int:
    """The bytes that a run's assets submitted (partitions of one asset share one commit, and its metadata)."""
    sizes = {m.asset_key: int(str(m.metadata["dagster/size_bytes"].value)) for m in materializations(run)}
    return sum(sizes.values())


def tags(instance: dg.DagsterInstance) -> None:
    """Let the schedule's tick of this morning run, and then run once more."""
    tick = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0)
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=tick) as context:
        (request,) = nightly_tags.evaluate_tick(context).run_requests or ()
    job = defs.resolve_job_def(nightly_tags.job.name)
    for run in ("tick", "the same tick again"):
        job.execute_in_process(instance=instance, run_config={**request.run_config, **QUIET}, tags=request.tags)
        made = [tag.name for dataset in registry.registry.datasets() for tag in dataset.tags()]
        console.print(f"{run}: {len(made)} datasets have the tag [bold]{', '.join(sorted(set(made)))}[/]")


def heads(opened: Registry) -> None:
    """The datasets and the heads of their main branch."""
    table = Table(title="Datasets on main", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name in ("dataset", "version", "digest", "components", "rows", "columns", "stored"):
        table.add_column(name, justify="right" if name in ("components", "rows", "columns", "stored") else "left")
    for dataset in opened.datasets():
        version = dataset.version()
        schemas = version.schema.tables()
        alike = len(version.schema.distinct()) == 1 and len(schemas) > 1
        shown = [("", next(iter(schemas.values())))] if alike else [(label, t) for label, t in schemas.items()]
        rows = [version.schema.rows] if alike else [t.rows for t in schemas.values()]
        for i, ((label, schema), count) in enumerate(zip(shown, rows, strict=True)):
            table.add_row(
                dataset.name if i == 0 else "",
                f"v{version.number}" if i == 0 else "",
                (version.digest or "")[:8] if i == 0 else "",
                str(version.component_count) if len(shown) == 1 else label,
                f"{count:,}",
                str(len(schema.columns)),
                size(sum(c.size for c in version.components)) if i == 0 else "",
            )
    console.print(table)


def history(opened: Registry, name: str) -> None:
    """The versions of a dataset as a tree, with the branches and tags that name them."""
    dataset = opened.dataset(name)
    names: dict[int, list[str]] = {}
    for pointer in (*dataset.branches(), *dataset.tags()):
        names.setdefault(pointer.version_number, []).append(f"{'tag ' if pointer.is_tag else ''}{pointer.name}")
    versions = {version.number: version for version in dataset.tree()}
    heading(f"5. History of {name}")

    def add(tree: Tree, number: int) -> None:
        version = versions[number]
        pointers = f" [green]({', '.join(names[number])})[/]" if number in names else ""
        branch = tree.add(
            f"[bold]v{number}[/] [yellow]{(version.digest or '')[:8]}[/]{pointers} {version.message} "
            f"[dim]{version.created_at:%Y-%m-%d %H:%M} by {version.created_by}, "
            f"{len(version.productions)} productions[/]"
        )
        for child in versions.values():
            if child.parents and child.parents[0] == number:
                add(branch, child.number)

    root = Tree(name, guide_style="dim")
    for version in versions.values():
        if not version.parents:
            add(root, version.number)
    console.print(root)


def schemas(opened: Registry, before: str, after: str) -> None:
    """What changed between the schemas of two datasets."""
    from dataset_registry.model.schema import compare

    heading(f"6. Schemas: {before} and {after}")
    left, right = (next(iter(opened.version(name).schema.tables().values())) for name in (before, after))
    for change in compare(left, right).changes:
        console.print(f"  {change}", markup=False)


def savings(opened: Registry, runs: Sequence[dg.ExecuteInProcessResult]) -> None:
    """What runs submitted, and what is stored."""
    heading("7. Deduplication")
    submitted = sum(submitted_bytes(run) for run in runs)
    stored = sum(file.stored_size for file in opened.files())
    count = sum(file.form not in ("parts", "pack") for file in opened.files())
    console.print(
        f"{len(runs)} runs submitted {size(submitted)}; {count} files are stored in {size(stored)}: "
        f"[bold]{1 - stored / submitted:.0%} saved[/]"
    )
    workbook = opened.file(str(opened.version("raw/airports").components[0].content_hash))
    console.print(
        f"The partners' workbook is a version of raw/airlines and of raw/airports: stored once, "
        f"count {workbook.reference_count}"
    )


def lineage(version: Version, opened: Registry) -> None:
    """The exact versions that a version was made from, down to the deliveries."""
    heading(f"8. Lineage of {version} on {BRANCH}")

    def add(tree: Tree, address: str, ref: str) -> None:
        branch = tree.add(f"[bold]{address}[/] [dim]{ref}[/]")
        for read in opened.version(address).provenance.inputs:
            how = f"read on {read.ref}" if read.fallback is None else f"read on {read.ref}, from {read.fallback}"
            add(branch, f"{read.dataset}@v{read.version}", how)

    root = Tree("made from", guide_style="dim")
    add(root, str(version), f"run {(version.provenance.run_id or '')[:8]}")
    console.print(root)


def pull_request(instance: dg.DagsterInstance) -> None:
    """A run on a branch of its own is published only if its checks are green."""
    heading("9. On a branch for each run: published when the checks are green")
    for minutes in (-5, 20):
        run = materialize(
            instance,
            [carrier_delays.key, punctuality.key],
            tags={"registry/branch": "run/{run_id}"},
            ops={carrier_delays.op.name: {"config": DelayConfig(late_after_minutes=minutes).model_dump()}},
            may_fail=True,
        )
        passed = all(check.passed for check in run.get_asset_check_evaluations())
        console.print(f"late after {minutes} minutes: the check is {'green' if passed else 'red'}")
        try:
            published = publish_run(run.run_id, instance=instance, registry=registry)
        except Tainted as error:
            console.print(f"  not published: {str(error).replace(run.run_id, run.run_id[:8])}", markup=False)
        else:
            console.print(f"  published: [bold]{', '.join(map(str, published.heads))}[/]")


def review(opened: Registry) -> int:
    """A review of the branch of the third step; its number."""
    heading(f"10. A review of the branch {BRANCH}")
    found = next(iter(opened.reviews(state="open", branch=BRANCH)), None) or opened.create_review(
        BRANCH,
        title="A departure is late after 30 minutes",
        description="The airports count from 15 minutes on. Passengers do not complain before 30.",
    )
    for dataset in opened.review(found.id).datasets:
        behind = ", and main moved since" if dataset.is_behind else ""
        console.print(f"{dataset.dataset}: v{dataset.before} → v{dataset.after}{behind}")
    return found.id


def heading(text: str) -> None:
    """A line that opens a part of the story."""
    console.print(f"\n[bold blue]{text}[/]")


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


if __name__ == "__main__":
    main()
