"""Schedules: jobs that tag the heads of datasets, apply a retention policy, verify content, and delete branches of runs."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

import dagster as dg

from dataset_registry.dagster_io.resource import DatasetRegistryResource
from dataset_registry.dataset import Dataset
from dataset_registry.errors import AlreadyExists, InputError, NotFound, TagImmutable
from dataset_registry.model.names import pointer_name, several
from dataset_registry.model.records import PointerRecord
from dataset_registry.model.retention import Policy
from dataset_registry.registry import Registry


class TagConfig(dg.Config):
    """The scheduled time of the run in ISO 8601; empty (now) for a manual run."""

    tick: str = ""


def build_tag_schedule(
    *,
    name: str = "registry_tags",
    cron_schedule: str = "0 6 * * *",
    datasets: str | Sequence[str] = ("*",),
    branch: str = "main",
    template: str = "nightly-{date}",
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.ScheduleDefinition:
    """A schedule whose job tags the heads of datasets on a branch.

    `datasets` is a pattern of names (`raw/*`), or several; a pattern without a match is a warning in the run.
    `template` may use `{date}`, `{time}`, `{branch}` and must result in a valid name. A repeated tick creates no second
    tag, even if the branch moved in between. If the tag exists on another version, the version's number is appended
    (`nightly-2026-11-24.v7`).
    """
    patterns = several(datasets)
    # Fail when the schedule is defined, not when it runs.
    _expand(template, branch, datetime.now(UTC))

    @dg.op(name=f"{name}_op", required_resource_keys={resource_key}, out=dg.Out(dg.Nothing))
    def tag_heads(context: dg.OpExecutionContext, config: TagConfig) -> None:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        tick = datetime.fromisoformat(config.tick) if config.tick else datetime.now(UTC)
        wanted = _expand(template, branch, tick)
        there = resource.registry.datasets()
        for pattern in patterns:
            if not any(fnmatchcase(dataset.name, pattern) for dataset in there):
                context.log.warning(f"No dataset matches {pattern!r}: nothing is tagged for it")
        chosen = [d for d in there if any(fnmatchcase(d.name, pattern) for pattern in patterns)]
        tagged = 0
        for dataset in chosen:
            made = _tag(dataset, branch, wanted, tick)
            if made is None:
                context.log.warning(
                    f"{dataset.name} is not tagged: it has no branch {branch}, or no free name like {wanted}"
                )
                continue
            tag, is_new = made
            tagged += 1
            context.log.info(f"{dataset.name}@{tag} {'created' if is_new else 'exists already'}")
        context.add_output_metadata({"registry/tag": wanted, "registry/tagged": tagged})

    @dg.job(name=f"{name}_job", description=f"Tags the heads of {', '.join(patterns)} on {branch}.")
    def tag_job() -> None:
        tag_heads()

    @dg.schedule(
        name=name,
        job=tag_job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
        description=f"Tags the heads of {', '.join(patterns)} on {branch} as {template}.",
    )
    def tag_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time
        return dg.RunRequest(
            run_key=f"{name}:{tick.isoformat()}",
            run_config=dg.RunConfig(ops={f"{name}_op": TagConfig(tick=tick.isoformat())}),
            tags={"registry/tag": _expand(template, branch, tick)},
        )

    return tag_schedule


def build_retention_schedule(
    *,
    policy: Policy | None = None,
    name: str = "registry_retention",
    cron_schedule: str = "0 3 * * *",
    collect_older_than: timedelta = timedelta(days=1),
    verify_share: int | None = None,
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.ScheduleDefinition:
    """A schedule whose job expires what `policy` does not keep, then collects the files that are no longer referenced.

    Versions that unfinished runs of the instance have read or written are kept. Without a policy the job only collects.
    With `verify_share=N` it also checks the content of one N-th of the files, another one each day; damage fails the
    run.
    """

    @dg.op(name=f"{name}_op", required_resource_keys={resource_key}, out=dg.Out(dg.Nothing))
    def let_go(context: dg.OpExecutionContext) -> None:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        registry = resource.registry
        facts: dict[str, Any] = {}
        if policy is not None:
            runs = live_runs(context.instance)
            plan = registry.expire(policy, dry_run=True, live_runs=runs)
            for dataset, kept, gone, why in plan.summary():
                if gone:
                    context.log.info(f"{dataset}: {gone} versions expire, {kept} stay ({why})")
            expired = registry.apply(plan, live_runs=runs)
            facts["registry/expired"] = expired.versions
        collected = registry.collect(older_than=collect_older_than)
        context.log.info(f"{collected.files} files collected, {collected.bytes:,} bytes freed")
        facts |= {"registry/collected": collected.files, "registry/freed_bytes": collected.bytes}
        if verify_share is not None:
            facts |= _verify(context, registry, verify_share, facts)
        context.add_output_metadata(facts)

    @dg.job(name=f"{name}_job", description="Expires what the retention policy does not keep, and collects.")
    def retention_job() -> None:
        let_go()

    return dg.ScheduleDefinition(
        name=name,
        job=retention_job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
        description="Expires what the retention policy does not keep, and collects.",
    )


def _verify(
    context: dg.OpExecutionContext, registry: Registry, share: int, facts: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Read today's share of the content. Raises `Failure` with these facts if something is damaged."""
    today = datetime.now(UTC).date().toordinal() % share + 1
    found = registry.verify(deep=(today, share))
    for finding in found.findings:
        context.log.warning(f"{finding.what}. {finding.repair}")
    read = {"registry/verified_bytes": found.bytes_read}
    if found.damage:
        raise dg.Failure(
            f"{len(found.damage)} files or rows of the registry are damaged; see the log and run: dataset-registry verify",
            metadata={**facts, **read},
        )
    return read


def build_collect_schedule(
    *,
    name: str = "registry_collect",
    cron_schedule: str = "0 3 * * *",
    older_than: timedelta = timedelta(days=1),
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.ScheduleDefinition:
    """A schedule whose job removes the files that no version references, and that are older than `older_than`."""
    return build_retention_schedule(
        name=name,
        cron_schedule=cron_schedule,
        collect_older_than=older_than,
        execution_timezone=execution_timezone,
        default_status=default_status,
        resource_key=resource_key,
    )


def build_verify_schedule(
    *,
    name: str = "registry_verify",
    cron_schedule: str = "0 4 * * *",
    share: int = 7,
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.ScheduleDefinition:
    """A schedule whose job checks every row and object, and reads the content of one of `share` equal shares, another one each
    day. Damage fails the run."""

    @dg.op(name=f"{name}_op", required_resource_keys={resource_key}, out=dg.Out(dg.Nothing))
    def check(context: dg.OpExecutionContext) -> None:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        context.add_output_metadata(_verify(context, resource.registry, share))

    @dg.job(name=f"{name}_job", description="Verifies a share of the registry's content.")
    def verify_job() -> None:
        check()

    return dg.ScheduleDefinition(
        name=name,
        job=verify_job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
        description="Verifies a share of the registry's content.",
    )


# --- branches of runs --------------------------------------------------------------------------------------------------


def build_branch_schedule(
    *,
    branches: str | Sequence[str] = "run/*",
    published: timedelta | None = timedelta(hours=1),
    failed: timedelta | None = timedelta(days=7),
    older_than: timedelta | None = timedelta(days=30),
    name: str = "registry_branches",
    cron_schedule: str = "30 2 * * *",
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
    resource_key: str = "registry",
) -> dg.ScheduleDefinition:
    """A schedule whose job deletes branches of runs and pull requests that are not needed any longer.

    A branch is deleted when it has not moved for `published` (all that it has is on the tracked branch), `failed` (it has tainted
    content) or `older_than` (any other); None keeps it. Versions stay until a retention policy expires them. Branches of
    unfinished runs, protected branches, the tracked branch and the fallback branch are kept.
    """
    patterns = several(branches)
    after = {"published": published, "failed": failed, "old": older_than}

    @dg.op(name=f"{name}_op", required_resource_keys={resource_key}, out=dg.Out(dg.Nothing))
    def tidy(context: dg.OpExecutionContext) -> None:
        resource: DatasetRegistryResource = getattr(context.resources, resource_key)
        deleted = delete_branches(resource, context.instance, patterns, after)
        for branch, reason in deleted.items():
            context.log.info(f"The branch {branch} was deleted: {reason}")
        context.add_output_metadata({"registry/deleted_branches": len(deleted)})

    @dg.job(name=f"{name}_job", description=f"Deletes branches {', '.join(patterns)} that are not needed any longer.")
    def branch_job() -> None:
        tidy()

    return dg.ScheduleDefinition(
        name=name,
        job=branch_job,
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
        description=f"Deletes branches {', '.join(patterns)} that are not needed any longer.",
    )


def delete_branches(
    resource: DatasetRegistryResource,
    instance: dg.DagsterInstance,
    patterns: Sequence[str],
    after: Mapping[str, timedelta | None],
) -> dict[str, str]:
    """Delete the branches that match and that have not moved for as long as `after` says of their state, in all datasets.

    Returns their names with the reason.
    """
    tracked = resource.tracked_branch
    kept = {tracked, resource.fallback_branch, *_live_branches(resource, instance)}
    there: dict[str, list[tuple[Dataset, PointerRecord]]] = {}
    for dataset in resource.registry.datasets():
        safe = kept | {protection.branch for protection in resource.registry.protections(dataset.name)}
        for pointer in dataset.branches():
            if pointer.name not in safe and any(fnmatchcase(pointer.name, pattern) for pattern in patterns):
                there.setdefault(pointer.name, []).append((dataset, pointer))
    deleted = {}
    for name, found in sorted(there.items()):
        moved_at = max(pointer.updated_at for _, pointer in found)
        state = _state_of(found, tracked)
        limit = after[state]
        if limit is None or datetime.now(UTC) - moved_at < limit:
            continue
        for dataset, _ in found:
            with suppress(NotFound):  # deleted in the meantime
                dataset.delete_branch(name)
        deleted[name] = {"published": "it is published", "failed": "it has tainted content", "old": "it is old"}[state]
    return deleted


def _live_branches(resource: DatasetRegistryResource, instance: dg.DagsterInstance) -> set[str]:
    """The branches of unfinished runs."""
    found = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        with suppress(InputError):  # a run of another code location, with tags or templates that are not known here
            found.add(resource.branch_of(run.tags, run.run_id))
    return found


def _state_of(found: Sequence[tuple[Dataset, PointerRecord]], tracked: str) -> Literal["published", "failed", "old"]:
    """Whether all that a branch has is on the tracked branch, or else whether it has tainted content."""
    is_published = True
    for dataset, pointer in found:
        version = dataset.version(pointer.name)
        if version.taints:
            return "failed"
        try:
            base = dataset.merge_base(pointer.name, tracked)
        except NotFound:
            base = None
        is_published = is_published and base is not None and base.number == version.number
    return "published" if is_published else "old"


_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.MANAGED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def live_runs(instance: dg.DagsterInstance) -> list[str]:
    """The ids of the unfinished runs of an instance, whose inputs and outputs are kept."""
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))]


def _expand(template: str, branch: str, moment: datetime) -> str:
    """Expand a template to the name of a tag. Raises `InputError` for an invalid template."""
    try:
        name = template.format(date=f"{moment:%Y-%m-%d}", time=f"{moment:%H%M}", branch=branch)
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"The template {template!r} cannot be filled in ({error!r}): it may use {{date}}, {{time}} and {{branch}}."
        ) from error
    return pointer_name(name)


def _tag(dataset: Dataset, branch: str, wanted: str, tick: datetime) -> tuple[str, bool] | None:
    """Tag the head of a branch; the tag's name and whether it is new.

    None if the dataset does not have the branch, or if every possible name is taken by a branch or a deleted tag.

    An existing tag with the wanted name belongs to this tick if it is not older than the tick.
    """
    try:
        head = dataset.version(branch)
    except NotFound:
        return None
    tags = {tag.name: tag for tag in dataset.tags()}
    for name in (wanted, f"{wanted}.v{head.number}"):
        at = tags.get(name)
        if at is not None and (at.version_id == head.id or at.updated_at >= tick):
            return name, False
        if at is None:
            try:
                dataset.create_tag(name, f"v{head.number}")
            except (TagImmutable, AlreadyExists):
                continue
            return name, True
    return None
