"""Gates: results of checks, taints, and what keeps tainted content from protected branches.

A version is tainted if its run failed or a blocking check failed on it. What it changed is tainted, and every version that has
that content: its descendants until they replace it, merges, cherry-picks and reverts that took it.
docs/design/gates.md has the rules.
"""

from collections.abc import Collection, Sequence

from dataset_registry.access import Access, authorize, level_on, readable
from dataset_registry.catalog import Transaction, datasets, grants, manifests, productions, taints, versions
from dataset_registry.catalog.taints import OpenTaint
from dataset_registry.errors import InputError, NotFound, Tainted
from dataset_registry.model.actors import level
from dataset_registry.model.checks import CheckResult, NewCheck, Taint, carried, checked
from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.names import free_text, single_line
from dataset_registry.model.partitions import belongs, partition_key
from dataset_registry.model.records import DatasetRecord, VersionRecord
from dataset_registry.operations import audit, resolve

# --- results of checks ---------------------------------------------------------------------------------------------------


def record_check(access: Access, version: VersionRecord, check: NewCheck) -> CheckResult:
    """Record the result of a check on a version. If a blocking check failed, the version is tainted; if the same check passes on
    it later, it is not any longer.

    Raises `NotFound`, `InputError`, `PermissionDenied` (it takes `write`).
    """
    checked(check)

    def work(tx: Transaction) -> CheckResult:
        authorize(access, tx, "write", version.dataset_id)
        dataset = datasets.get(tx, version.dataset_id)
        if not versions.share(tx, [version.id]) or versions.by_id(tx, version.id) is None:
            raise NotFound(f"v{version.number} of {dataset.name} was deleted in the meantime.", version=version.number)
        user_id = access.user_id(tx)
        root = version if check.partition is None else _first_with(tx, version, check.partition)
        taints.add_check(tx, version.id, check, user_id)
        source = f"check:{check.label}@v{version.number}"
        if check.taints:
            reason = f"the check {check.label} failed on v{version.number}"
            taints.add(
                tx,
                version_id=root.id,
                dataset_id=dataset.id,
                source=source,
                reason=reason,
                partition=check.partition,
                user_id=user_id,
            )
        elif check.passed:
            taints.lift(tx, source, "the check passed later", user_id, dataset.id)
        found = taints.checks_of(tx, version.id)[-1]
        audit.note(
            access,
            tx,
            "check.record",
            (dataset.id, dataset.name),
            ref=f"v{version.number}",
            after="passed" if check.passed else "failed",
            check=check.label,
            blocking=check.is_blocking or None,
            run=check.run_id,
        )
        return found

    return access.catalog.write(work)


def checks(access: Access, version: VersionRecord) -> list[CheckResult]:
    """The results on a version, oldest first."""
    with access.catalog.read() as tx:
        authorize(access, tx, "read", version.dataset_id)
        return taints.checks_of(tx, version.id)


def _first_with(tx: Transaction, version: VersionRecord, partition: str) -> VersionRecord:
    """The version from which on the partition has been as it is in `version`. Raises `NotFound` if it is not there."""
    key = partition_key(partition)
    mine = _of_partition(tx, version.id, key)
    if not mine:
        raise NotFound(f"v{version.number} of {version.dataset} has no partition {partition!r}.", partition=partition)
    while version.parent_id is not None and _of_partition(tx, version.parent_id, key) == mine:
        parent = versions.by_id(tx, version.parent_id)
        assert parent is not None, "a version keeps its parent"
        version = parent
    return version


def _of_partition(tx: Transaction, version_id: int, key: str) -> dict[ComponentKey, str]:
    stored = manifests.StoredManifest(tx, version_id)
    entries = {entry.key: entry for entry in (*stored.named(key), *stored.prefixed(f"{key}//"))}
    return {
        at: entry.digest().hex()
        for at, entry in entries.items()
        if belongs(at[0], {}, key) or at[0].startswith(f"{key}//")
    }


# --- runs ----------------------------------------------------------------------------------------------------------------


def finish_run(access: Access, run_id: str, *, succeeded: bool) -> list[Taint]:
    """Record how a run ended. What a failed run wrote is tainted, until the run, executed again under its id, succeeds.

    Returns the taints that the run has now. Datasets that the actor may not write to are left out. Raises `NotFound` if the run
    wrote nothing.
    """
    single_line(run_id, "run")
    source = f"run:{run_id}"

    def work(tx: Transaction) -> list[Taint]:
        made = productions.of_run(tx, run_id, readable(access, tx))
        if not made:
            raise NotFound(f"No version was written by a run {run_id!r}.", run=run_id)
        user_id, written, names = access.user_id(tx), set(), []
        for dataset_id, version_id, production in made:
            if level_on(access, tx, dataset_id) < level("write"):
                continue
            if dataset_id not in written:
                written.add(dataset_id)
                names.append(datasets.get(tx, dataset_id).name)
            if not succeeded and not production.unchanged and versions.share(tx, [version_id]):
                taints.add(
                    tx,
                    version_id=version_id,
                    dataset_id=dataset_id,
                    source=source,
                    reason=f"the run {run_id} failed",
                    partition=None,
                    user_id=user_id,
                )
        if not written:
            authorize(access, tx, "write", made[0][0])
        if succeeded:
            for dataset_id in written:
                taints.lift(tx, source, "the run succeeded later", user_id, dataset_id)
        audit.note(access, tx, "run.finish", ref=run_id, after="succeeded" if succeeded else "failed", datasets=names)
        reason = f"the run {run_id} failed"
        return [t.taint for i in sorted(written) for t in taints.open_in(tx, i) if t.taint.reason == reason]

    return access.catalog.write(work)


# --- taints --------------------------------------------------------------------------------------------------------------


def taints_of(access: Access, version: VersionRecord) -> list[Taint]:
    """The open taints of a version: its own, and those of content that it has from other versions."""
    with access.catalog.snapshot() as tx:
        authorize(access, tx, "read", version.dataset_id)
        return on(tx, version.dataset_id, version.id)


def absolve(access: Access, dataset: DatasetRecord, ref: str, because: str) -> list[Taint]:
    """Close the taints of a version, so that its content may reach protected branches. Returns them.

    Raises `NotFound`, `InvalidRef`, `InputError` (no reason, or no taint), `PermissionDenied` (it takes `admin`).
    """
    because = free_text(because, "reason").strip()
    if not because:
        raise InputError("Say why the version is absolved: because='…'.")

    def work(tx: Transaction) -> list[Taint]:
        authorize(access, tx, "admin", dataset.id)
        version = resolve.version(tx, dataset, ref)
        found = on(tx, dataset.id, version.id)
        if not found:
            raise InputError(f"v{version.number} of {dataset.name} is not tainted.", version=version.number)
        taints.absolve(tx, [taint.id for taint in found], because, access.user_id(tx))
        audit.note(
            access,
            tx,
            "absolve",
            (dataset.id, dataset.name),
            ref=f"v{version.number}",
            because=because,
            taints=[str(taint) for taint in found],
        )
        return found

    return access.catalog.write(work)


def on(tx: Transaction, dataset_id: int, version_id: int) -> list[Taint]:
    """The open taints that a version has."""
    return [found.taint for found in taints.open_in(tx, dataset_id) if version_id in _having(tx, found)]


def _having(tx: Transaction, found: OpenTaint) -> dict[int, set[ComponentKey]]:
    """The tainted components of every version that has any, by the id of the version.

    In the order of their numbers, so that everything that a version was made from comes before it.
    """
    root = versions.by_id(tx, found.version_id)
    if root is None:
        return {}
    content: dict[int, set[ComponentKey]] = {root.id: _tainted_by(tx, root, found.partition)}
    waiting: dict[int, taints.Made] = {}
    origins: dict[int, list[tuple[int, taints.Made]]] = {}

    def follow(version_id: int) -> None:
        for made in taints.made_from(tx, version_id):
            waiting[made.number] = made
            origins.setdefault(made.version_id, []).append((version_id, made))

    follow(root.id)
    while waiting:
        made = waiting.pop(min(waiting))
        own = None if made.first_parent is None else taints.changed(tx, made.first_parent, made.version_id)
        components: set[ComponentKey] = set()
        for source_id, edge in origins[made.version_id]:
            changed = content[source_id] if own is None else own
            components |= carried(content[source_id], changed, edge.edited, is_first_parent=edge.is_first_parent)
        if components:
            content[made.version_id] = components
            follow(made.version_id)
    return content


def _tainted_by(tx: Transaction, root: VersionRecord, partition: str | None) -> set[ComponentKey]:
    """The components that a taint is about: those of a partition, or all that its version changed."""
    if partition is not None:
        return set(_of_partition(tx, root.id, partition_key(partition)))
    if root.parent_id is not None:
        return taints.changed(tx, root.parent_id, root.id)
    return {entry.key for entry in manifests.StoredManifest(tx, root.id).since("")}


# --- the gate ------------------------------------------------------------------------------------------------------------


def guard(
    tx: Transaction, dataset: DatasetRecord, branch: str, version_id: int, before: int | None, *, always: bool = False
) -> None:
    """Refuse to point a protected branch, now at `before`, to a version with tainted content that `before` does not have.

    With `always`, whether it is protected or not. Raises `Tainted`.
    """
    if version_id == before:
        return
    open_taints = taints.open_in(tx, dataset.id)
    if not open_taints or not (always or grants.is_protected(tx, dataset.id, dataset.name, branch)):
        return
    refused = []
    for found in open_taints:
        having = _having(tx, found)
        there = having.get(before) if before is not None else None
        if version_id in having and (there is None or not having[version_id] <= there):
            refused.append(found.taint)
    if refused:
        raise _tainted(dataset.name, branch, refused)


def _tainted(name: str, branch: str, found: Sequence[Taint]) -> Tainted:
    listed = "; ".join(map(str, found[:5])) + ("; …" if len(found) > 5 else "")
    return Tainted(
        f"{name}@{branch} was not changed: the content is tainted. {listed}. Make the data again so that the run and its checks "
        f"succeed, or let an admin absolve it: dataset-registry absolve {name}@v{found[0].version} --because '…'",
        dataset=name,
        branch=branch,
        taints=[{"version": taint.version, "reason": taint.reason} for taint in found],
    )


def needed(tx: Transaction, dataset_id: int, version_ids: Collection[int]) -> set[int]:
    """Those of a dataset's versions that have tainted content and that others were made from: without them, the taint of the
    others would be lost."""
    having = {i for found in taints.open_in(tx, dataset_id) for i in _having(tx, found)}
    return {i for i in having.intersection(version_ids) if taints.made_from(tx, i)}
