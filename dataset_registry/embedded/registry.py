"""A registry in this process: a catalog and a store."""

import getpass
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from dataset_registry.access import Access
from dataset_registry.catalog import Catalog
from dataset_registry.catalog.opening import make_ready
from dataset_registry.catalog.sqlite import sqlite_url
from dataset_registry.content import inline
from dataset_registry.dataset import Dataset
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedDraft, EmbeddedVersion
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.actors import Actor, Grant, Kind, NewToken, Permission, Protection, Token, User
from dataset_registry.model.addresses import redacted
from dataset_registry.model.audit import AuditCheck, AuditEntry
from dataset_registry.model.checks import Taint
from dataset_registry.model.maintenance import (
    GRACE,
    Adoption,
    AdoptionPlan,
    Collected,
    CollectPlan,
    Copied,
    Expired,
    ExpirePlan,
    SweepPlan,
)
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import MAIN, several, split_address, user_name
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.publishing import Consistency, PublishPlan, RevertPlan, Run
from dataset_registry.model.records import FileRecord, Freeze, RegistryBranch
from dataset_registry.model.retention import Policy
from dataset_registry.model.reviews import EventKind, Review, ReviewDetails, ReviewState
from dataset_registry.model.verification import Verification
from dataset_registry.operations import adopt as adoption
from dataset_registry.operations import audit, binding, datasets, files, gates, grants, refs, runs, users
from dataset_registry.operations import collect as collection
from dataset_registry.operations import copy as copying
from dataset_registry.operations import expire as expiry
from dataset_registry.operations import freeze as freezing
from dataset_registry.operations import publish as publishing
from dataset_registry.operations import reviews as reviewing
from dataset_registry.operations import verify as verification
from dataset_registry.operations.sweep import apply_sweep, plan_sweep
from dataset_registry.registry import Registry
from dataset_registry.store import Cache, Store, open_store, parse_compression
from dataset_registry.version import Version


class EmbeddedRegistry(Registry):
    """A registry in this process: every method calls one operation."""

    def __init__(self, access: Access) -> None:
        self.access = access

    @property
    def actor(self) -> str:
        return self.access.actor.name

    @property
    def is_owner(self) -> bool:
        return self.access.actor.is_owner

    @property
    def location(self) -> str:
        return f"{self.access.catalog.address} + {self.access.store.location}"

    def close(self) -> None:
        self.access.catalog.close()
        self.access.copies.close()

    # --- datasets --------------------------------------------------------------------------------------------------

    def create_dataset(self, name: str, *, description: str | None = None) -> EmbeddedDataset:
        return EmbeddedDataset(self.access, datasets.create(self.access, name, description))

    def dataset(self, name: str | int) -> EmbeddedDataset:
        found = datasets.by_id(self.access, name) if isinstance(name, int) else datasets.get(self.access, name)
        return EmbeddedDataset(self.access, found)

    def datasets(self, *, prefix: str = "") -> list[Dataset]:
        return [EmbeddedDataset(self.access, record) for record in datasets.list_all(self.access, prefix)]

    def draft(self, name: str, branch: str = MAIN, *, description: str | None = None, **options: Any) -> EmbeddedDraft:
        return EmbeddedDraft(self.access, datasets.find_or_new(self.access, name, description), branch, **options)

    def at(self, address: str) -> tuple[EmbeddedDataset, str | None]:
        name, ref = split_address(address)
        return EmbeddedDataset(self.access, datasets.addressed(self.access, name, address)), ref

    # --- files -----------------------------------------------------------------------------------------------------

    def file(self, content_hash: str) -> FileRecord:
        return files.file(self.access, content_hash)

    def files(self) -> Iterator[FileRecord]:
        return files.list_all(self.access)

    def open_file(self, content_hash: str) -> BinaryIO:
        return files.open_bytes(self.access, content_hash)

    # --- who may what ----------------------------------------------------------------------------------------------

    def create_user(
        self, name: str, *, role: str = "member", kind: Kind = "person", members: str | Sequence[str] = ()
    ) -> User:
        return users.create(self.access, name, kind=kind, role=role, members=several(members))

    def update_user(
        self,
        name: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        members: str | Sequence[str] | None = None,
    ) -> User:
        if members is not None:
            return users.set_members(self.access, name, several(members))
        return users.update(self.access, name, role=role, disabled=disabled)

    def users(self) -> list[User]:
        return users.list_all(self.access)

    def create_token(
        self,
        user: str | None = None,
        *,
        name: str = "token",
        permission: Permission = "admin",
        prefix: str = "",
        lasts: timedelta | None = None,
    ) -> NewToken:
        return users.create_token(self.access, user, name=name, permission=permission, prefix=prefix, lasts=lasts)

    def tokens(self, user: str | None = None) -> list[Token]:
        return users.tokens(self.access, user)

    def revoke_token(self, token_id: int) -> Token:
        return users.revoke_token(self.access, token_id)

    def grant(self, user: str, permission: Permission, name: str | None = None, *, file: str | None = None) -> Grant:
        return grants.grant(self.access, user, permission, name, file)

    def revoke(self, user: str, name: str | None = None, *, file: str | None = None) -> None:
        grants.revoke(self.access, user, name, file)

    def grants(self, name: str | None = None, *, file: str | None = None, user: str | None = None) -> list[Grant]:
        return grants.list_all(self.access, name, file, user)

    def protect(
        self,
        name: str,
        branch: str = MAIN,
        *,
        allow: str | Sequence[str] = (),
        approvals: int = 0,
        checks: bool = False,
    ) -> Protection:
        return grants.protect(self.access, name, branch, several(allow), approvals=approvals, checks=checks)

    def unprotect(self, name: str, branch: str = MAIN) -> None:
        grants.unprotect(self.access, name, branch)

    def protections(self, name: str | None = None) -> list[Protection]:
        return grants.protections(self.access, name)

    # --- who did what ----------------------------------------------------------------------------------------------

    def audit(
        self,
        *,
        dataset: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        return audit.entries(self.access, dataset=dataset, actor=actor, action=action, before=before, limit=limit)

    def export_audit(self) -> Iterator[tuple[AuditEntry, str]]:
        return audit.export(self.access)

    def seal_audit(self) -> int:
        return audit.seal(self.access)

    def check_audit(self) -> AuditCheck:
        return audit.check(self.access)

    # --- read-only mode --------------------------------------------------------------------------------------------

    def freeze(self, reason: str) -> Freeze:
        return freezing.freeze(self.access, reason)

    def unfreeze(self) -> None:
        freezing.unfreeze(self.access)

    @property
    def frozen(self) -> Freeze | None:
        return freezing.frozen(self.access)

    # --- branches over all datasets --------------------------------------------------------------------------------

    def create_branch(self, name: str, source: str = MAIN) -> int:
        return refs.create_everywhere(self.access, name, source)

    def delete_branch(self, name: str) -> int:
        return refs.delete_everywhere(self.access, name)

    def branches(self) -> list[RegistryBranch]:
        return refs.list_everywhere(self.access)

    # --- publishing ------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        return runs.run(self.access, run_id)

    def finish_run(self, run_id: str, *, succeeded: bool) -> list[Taint]:
        return gates.finish_run(self.access, run_id, succeeded=succeeded)

    def consistent(self, branch: str = MAIN) -> Consistency:
        return runs.consistency(self.access, branch)

    def _plan_publish(self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions) -> PublishPlan:
        return publishing.plan(self.access, branch, into, names, options)

    def _publish(
        self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions, *, allow_moved_inputs: bool
    ) -> list[Version]:
        _, heads = publishing.publish(self.access, branch, into, names, options, allow_moved_inputs=allow_moved_inputs)
        return [EmbeddedVersion(self.access, head) for head in heads]

    def _plan_revert_run(self, run_id: str, branch: str, options: MergeOptions) -> RevertPlan:
        return runs.plan_revert(self.access, run_id, branch, options)

    def _revert_run(self, run_id: str, branch: str, options: MergeOptions, *, force: bool) -> list[Version]:
        _, heads = runs.revert(self.access, run_id, branch, options, force=force)
        return [EmbeddedVersion(self.access, head) for head in heads]

    # --- reviews ---------------------------------------------------------------------------------------------------

    def create_review(self, branch: str, into: str = MAIN, *, title: str, description: str | None = None) -> Review:
        return reviewing.create(self.access, branch, into, title, description)

    def reviews(self, *, state: ReviewState | None = None, branch: str | None = None) -> list[Review]:
        return reviewing.list_all(self.access, state=state, branch=branch)

    def review(self, review_id: int) -> ReviewDetails:
        return reviewing.details(self.access, review_id)

    def _review_event(self, review_id: int, kind: EventKind, comment: str | None, seen: str | None) -> ReviewDetails:
        return reviewing.add_event(self.access, review_id, kind, comment, seen=seen)

    def close_review(self, review_id: int) -> Review:
        return reviewing.close(self.access, review_id)

    def _merge_review(
        self, review_id: int, options: MergeOptions, *, allow_moved_inputs: bool, seen: str | None
    ) -> list[Version]:
        _, heads = reviewing.merge(self.access, review_id, options, allow_moved_inputs=allow_moved_inputs, seen=seen)
        return [EmbeddedVersion(self.access, head) for head in heads]

    # --- maintenance -----------------------------------------------------------------------------------------------

    def verify(
        self,
        *,
        deep: bool | tuple[int, int] = False,
        repair: bool = False,
        older_than: timedelta = GRACE,
        progress: Progress = silent,
    ) -> Verification:
        share = (1, 1) if deep is True else deep or None
        return verification.verify(self.access, share=share, repair=repair, older_than=older_than, progress=progress)

    def _plan_expiry(self, policy: Policy, live_runs: Collection[str] | None) -> ExpirePlan:
        return expiry.plan(self.access, policy, live_runs=live_runs)

    def _plan_collection(self, older_than: timedelta) -> CollectPlan:
        return collection.plan(self.access, older_than)

    def _plan_sweep(self, older_than: timedelta, max_share: float, progress: Progress) -> SweepPlan:
        return plan_sweep(self.access, older_than, max_share, progress)

    def _apply(
        self, plan: ExpirePlan | CollectPlan | SweepPlan, live_runs: Collection[str] | None, progress: Progress
    ) -> Expired | Collected:
        match plan:
            case ExpirePlan():
                return expiry.apply(self.access, plan, live_runs=live_runs, progress=progress)
            case CollectPlan():
                return collection.apply(self.access, plan, progress)
            case SweepPlan():
                return apply_sweep(self.access, plan, progress)

    def copy_to(
        self,
        other: Registry,
        *,
        datasets: str | Sequence[str] = ("*",),
        refs: str | Sequence[str] | None = None,
        progress: Progress = silent,
    ) -> Copied:
        if not isinstance(other, EmbeddedRegistry):
            raise InputError("A copy to a server is not supported. Open the other registry by its catalog and store.")
        chosen = None if refs is None else several(refs)
        return copying.copy(self.access, other.access, wanted=several(datasets), refs=chosen, progress=progress)

    def _plan_adoption(self) -> AdoptionPlan:
        return adoption.plan(self.access)

    def _adopt(self, any_size: bool, give_up: Sequence[int], progress: Progress) -> Adoption:
        return adoption.adopt(self.access, progress, any_size=any_size, give_up=give_up)


def open_embedded(
    folder: str | Path | None = None,
    *,
    catalog: str | None = None,
    store: str | Store | None = None,
    actor: str | None = None,
    compression: str | None = None,
    verify_reads: bool = False,
    interface: str = "python",
    create: bool = True,
) -> EmbeddedRegistry:
    """Open a catalog and a store, as `Registry.open` says."""
    if folder is not None and "://" in str(folder):
        raise InputError(
            f"{redacted(str(folder))!r} is neither a folder nor the https:// address of a server. Pass a catalog and a "
            "store as: Registry.open(catalog='postgresql+psycopg://…', store='s3://…'), in a shell --catalog "
            "and --store.",
            location=redacted(str(folder)),
        )
    if folder is not None:
        root = Path(folder).expanduser().absolute()
        if root.is_file():
            raise InputError(f"{folder} is a file. Pass the folder of a registry.", location=str(folder))
        catalog = catalog or sqlite_url(root / "catalog.sqlite")
        store = store or str(root)
    if catalog is None or store is None:
        raise InputError(
            "No registry given: Registry.open('folder'), or Registry.open(catalog='postgresql+psycopg://…', "
            "store='folder')."
        )
    packing = parse_compression(compression)
    kept = open_store(store) if isinstance(store, str) else store  # before a catalog is created: it may be refused
    opened = Catalog(catalog)
    try:
        if not create:
            _refuse_absent(opened, folder)
        make_ready(opened)
    except BaseException:
        opened.close()
        raise
    who = (
        Actor(_user(), is_owner=True, interface=interface)
        if actor is None
        else Actor(user_name(actor), interface=interface)
    )
    access = Access(opened, kept, Cache(kept), who, packing, verifies_reads=verify_reads, inline_bytes=inline.largest())
    try:
        binding.bind(access)
    except BaseException:
        opened.close()
        raise
    return EmbeddedRegistry(access)


def rebound(catalog: str, store: str) -> str:
    """Bind a catalog to a store, replacing an earlier binding. Returns the id of the store."""
    opened = Catalog(catalog)
    try:
        make_ready(opened)
        kept = open_store(store)
        return binding.rebind(Access(opened, kept, Cache(kept), Actor(_user(), is_owner=True, interface="cli")))
    finally:
        opened.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return "owner"


def _refuse_absent(catalog: Catalog, folder: str | Path | None) -> None:
    """Raise `NotFound` when a catalog in SQLite does not exist."""
    if not catalog.is_sqlite or (catalog.path.exists() and catalog.path.stat().st_size > 0):
        return
    place = str(folder) if folder is not None else catalog.address
    options = f"-r {place}" if folder is not None else f"--catalog '{place}' --store …"
    raise NotFound(f"No registry at {place}. Create one with: dataset-registry init {options}", location=place)
