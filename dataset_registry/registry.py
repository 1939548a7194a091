"""The one door: a registry is a catalog and a store, opened by somebody."""

import getpass
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, overload

from dataset_registry.access import Access
from dataset_registry.catalog import Catalog, sqlite_url
from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.actors import Actor, Grant, Kind, NewToken, Permission, Protection, Token, User
from dataset_registry.model.addresses import redacted
from dataset_registry.model.audit import AuditCheck, AuditEntry
from dataset_registry.model.extras import require
from dataset_registry.model.maintenance import (
    GRACE,
    SHARE,
    Adoption,
    AdoptionPlan,
    Collected,
    CollectPlan,
    Copied,
    Expired,
    ExpirePlan,
    SweepPlan,
)
from dataset_registry.model.names import MAIN, several, split_address, user_name
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import FileRecord, Freeze, RegistryBranch
from dataset_registry.model.retention import Policy
from dataset_registry.model.verification import Verification
from dataset_registry.operations import adopt as adoption
from dataset_registry.operations import audit, binding, datasets, files, grants, refs, users
from dataset_registry.operations import collect as collection
from dataset_registry.operations import copy as copying
from dataset_registry.operations import expire as expiry
from dataset_registry.operations import freeze as freezing
from dataset_registry.operations import verify as verification
from dataset_registry.store import Cache, Store, open_store, parse_compression
from dataset_registry.version import Version


class Registry:
    """Datasets and their versions, in one place."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        catalog: str | None = None,
        store: str | Store | None = None,
        actor: str | None = None,
        token: str | None = None,
        compression: str | None = None,
        verify_reads: bool = False,
        door: str = "python",
        create: bool = True,
    ) -> "Registry":
        """Open a registry: in a folder (SQLite and files, created on first use), by the URLs of its catalog and store, or the
        one of a server by its address (`https://…`) with an API token. With `create=False` a folder or a SQLite catalog that is
        not there is an error (`NotFound`), so that a mistyped path does not become a second, empty registry.

        `catalog` is `sqlite:///…` or `postgresql+psycopg://…`; `store` a folder, a `file://` URL, `s3://bucket/prefix`,
        `gs://…` or `az://…`. `actor` acts as that user, with its permissions; without one you are the owner, who may do
        everything and commits under the name that the operating system knows. `compression="zstd"` compresses new CSV and
        JSON files where that pays; readers see the content either way. `verify_reads` hashes every stored file before anything
        is read from it, where otherwise the store is trusted (see docs/operations.md). `door` is what the audit log says of how
        you came in.

        Raises `CatalogOutdated` for a PostgreSQL catalog that needs
        `dataset-registry db upgrade`, `StoreMismatch` for a catalog with another one's store, `InputError`, `NotAuthenticated`
        for an invalid token.
        """
        if str(folder).lower().startswith(("https://", "http://")):
            if catalog is not None or store is not None or actor is not None or compression is not None:
                raise InputError("A server has its catalog and store, and its token says who you are: leave those out.")
            require("httpx", "remote", "The client of a server")
            from dataset_registry.remote import open_remote

            return open_remote(str(folder), token)
        if folder is not None and "://" in str(folder):
            raise InputError(
                f"{redacted(str(folder))!r} is neither a folder nor the https:// address of a server. A catalog and a store have "
                "parameters of their own: Registry.open(catalog='postgresql+psycopg://…', store='s3://…'), in a shell --catalog "
                "and --store.",
                location=redacted(str(folder)),
            )
        if folder is not None:
            root = Path(folder).expanduser().absolute()
            catalog = catalog or sqlite_url(root / "catalog.sqlite")
            store = store or str(root)
        if catalog is None or store is None:
            raise InputError(
                "Say where the registry is: Registry.open('folder'), or Registry.open(catalog='postgresql+psycopg://…', "
                "store='folder')."
            )
        packing = parse_compression(compression)
        kept = open_store(store) if isinstance(store, str) else store  # before a catalog is created: it may be refused
        opened = Catalog(catalog)
        try:
            if not create:
                _refuse_absent(opened, folder)
            opened.ready()
        except BaseException:
            opened.close()
            raise
        who = Actor(_user(), is_owner=True, door=door) if actor is None else Actor(user_name(actor), door=door)
        access = Access(opened, kept, Cache(kept), who, packing, verifies_reads=verify_reads)
        try:
            binding.bind(access)
        except BaseException:
            opened.close()
            raise
        return cls(access)

    @property
    def actor(self) -> str:
        """Who commits through this registry."""
        return self._access.actor.name

    @property
    def is_owner(self) -> bool:
        """Whether nothing is refused, because it was opened by its catalog and store without naming an actor."""
        return self._access.actor.is_owner

    @property
    def location(self) -> str:
        """Where the registry is: catalog and store, without their secrets."""
        return f"{self._access.catalog.address} + {self._access.store.location}"

    def close(self) -> None:
        """Give back database connections, and local copies of remote files: their paths are good until here.

        The registry connects again when it is used again.
        """
        self._access.catalog.close()
        self._access.copies.close()

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- datasets --------------------------------------------------------------------------------------------------

    def create_dataset(self, name: str, *, description: str | None = None) -> Dataset:
        """Make a dataset. Raises `InvalidName`, `AlreadyExists`."""
        return Dataset(self._access, datasets.create(self._access, name, description))

    def dataset(self, name: str | int) -> Dataset:
        """The dataset of this name, or with this id. Raises `NotFound`."""
        found = datasets.by_id(self._access, name) if isinstance(name, int) else datasets.get(self._access, name)
        return Dataset(self._access, found)

    def datasets(self, *, prefix: str = "") -> list[Dataset]:
        """The datasets whose name starts with `prefix`, by name."""
        return [Dataset(self._access, record) for record in datasets.list_all(self._access, prefix)]

    def draft(self, name: str, branch: str = MAIN, *, description: str | None = None, **options: Any) -> Draft:
        """A draft of a dataset that is made with it when there is none of this name yet; `options` as in `Dataset.draft`.

        A commit that fails leaves no dataset behind. Raises `InvalidName`.
        """
        return Draft(self._access, datasets.find_or_new(self._access, name, description), branch, **options)

    def version(self, address: str) -> Version:
        """The version at an address such as `raw/flights@main~2`; without `@`, the head of `main`."""
        dataset, ref = self.at(address)
        return dataset.version(MAIN if ref is None else ref)

    def at(self, address: str) -> tuple[Dataset, str | None]:
        """The dataset of an address such as `raw/flights@main~2`, and the ref, None where it has none.

        Raises `InvalidRef` where a dataset of an existing catalog has the whole text as its name: quoted, either can be meant.
        """
        name, ref = split_address(address)
        return Dataset(self._access, datasets.addressed(self._access, name, address)), ref

    # --- files -----------------------------------------------------------------------------------------------------

    def file(self, content_hash: str) -> FileRecord:
        """A stored file by the beginning of its SHA-256, with its size and reference count. Raises `NotFound`."""
        return files.file(self._access, content_hash)

    def files(self) -> Iterator[FileRecord]:
        """Every stored file, oldest first."""
        return files.list_all(self._access)

    def open_file(self, content_hash: str) -> BinaryIO:
        """A stream over a stored file's content, by the beginning of its SHA-256. Raises `NotFound`, `InputError` (a table in
        several parts)."""
        return files.open_bytes(self._access, content_hash)

    # --- who may what ----------------------------------------------------------------------------------------------

    def create_user(
        self, name: str, *, role: str = "member", kind: Kind = "person", members: str | Sequence[str] = ()
    ) -> User:
        """Make a user (`person`, `service`) with a role, or a `group` with members.

        Roles: `administrator` (everything), `member` (may make datasets, and what was granted), `guest` (what was granted).
        From the first user on, an `actor` must be one; who opens the registry without naming one stays its owner.
        Raises `InvalidName`, `AlreadyExists`.
        """
        return users.create(self._access, name, kind=kind, role=role, members=several(members))

    def update_user(
        self,
        name: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        members: str | Sequence[str] | None = None,
    ) -> User:
        """Change a user's role, lock it out or let it in again; give a group other members. Raises `NotFound`."""
        if members is not None:
            return users.set_members(self._access, name, several(members))
        return users.update(self._access, name, role=role, disabled=disabled)

    def users(self) -> list[User]:
        """Every user and group, by name."""
        return users.list_all(self._access)

    def create_token(
        self,
        user: str | None = None,
        *,
        name: str = "token",
        permission: Permission = "admin",
        prefix: str = "",
        lasts: timedelta | None = None,
    ) -> NewToken:
        """Make an API token for a user, for oneself when None; its `secret` is not shown again.

        It can do what its user can, up to `permission`, on datasets whose name starts with `prefix`, as long as it `lasts`.
        """
        return users.create_token(self._access, user, name=name, permission=permission, prefix=prefix, lasts=lasts)

    def tokens(self, user: str | None = None) -> list[Token]:
        """The tokens of a user, the newest first; everybody's when None, for an administrator."""
        return users.tokens(self._access, user)

    def revoke_token(self, token_id: int) -> Token:
        """Let a token let nobody in any more. Raises `NotFound`."""
        return users.revoke_token(self._access, token_id)

    def grant(self, user: str, permission: Permission, name: str | None = None, *, file: str | None = None) -> Grant:
        """Let a user or group `read`, `write` or `admin` a dataset, all datasets under a prefix (`raw/`; empty for all), or
        the file with a hash. It replaces what they had there. Raises `NotFound`, `PermissionDenied`."""
        return grants.grant(self._access, user, permission, name, file)

    def revoke(self, user: str, name: str | None = None, *, file: str | None = None) -> None:
        """Take what a user or group was granted on a dataset, a prefix or a file. Raises `NotFound`."""
        grants.revoke(self._access, user, name, file)

    def grants(self, name: str | None = None, *, file: str | None = None, user: str | None = None) -> list[Grant]:
        """What was granted: on a dataset, prefix or file, to a user and its groups, or all that you may see."""
        return grants.list_all(self._access, name, file, user)

    def protect(self, name: str, branch: str = MAIN, *, allow: str | Sequence[str] = ()) -> Protection:
        """Let only admins and those in `allow` (users, groups) move a branch of a dataset, or of all under a prefix."""
        return grants.protect(self._access, name, branch, several(allow))

    def unprotect(self, name: str, branch: str = MAIN) -> None:
        """Protect a branch no more. Raises `NotFound`."""
        grants.unprotect(self._access, name, branch)

    def protections(self, name: str | None = None) -> list[Protection]:
        """The protected branches of a dataset, by its own rules and those of prefixes; all of them without a name."""
        return grants.protections(self._access, name)

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
        """Entries of the audit log, the newest first; `before` is the id of the entry that the page before ended with."""
        return audit.entries(self._access, dataset=dataset, actor=actor, action=action, before=before, limit=limit)

    def export_audit(self) -> Iterator[tuple[AuditEntry, str]]:
        """Every entry in order, each with the hash that it carries."""
        return audit.export(self._access)

    def seal_audit(self) -> int:
        """Seal the entries that were not sealed yet, as every collection does; how many those were."""
        return audit.seal(self._access)

    def check_audit(self) -> AuditCheck:
        """Find out whether anybody changed, removed or added entries since they were sealed."""
        return audit.check(self._access)

    # --- read-only mode --------------------------------------------------------------------------------------------

    def freeze(self, reason: str) -> Freeze:
        """Make the registry read-only until `unfreeze`: whatever writes fails with `RegistryFrozen`, which gives the reason.

        Other processes obey within two seconds. For administrators. Raises `InputError` (no reason), `PermissionDenied`.
        """
        return freezing.freeze(self._access, reason)

    def unfreeze(self) -> None:
        """End the read-only mode. For administrators. Raises `PermissionDenied`."""
        freezing.unfreeze(self._access)

    @property
    def frozen(self) -> Freeze | None:
        """Why the registry is read-only, None where it is not."""
        return freezing.frozen(self._access)

    # --- branches over all datasets --------------------------------------------------------------------------------

    def create_branch(self, name: str, source: str = MAIN) -> int:
        """Branch every dataset that has the branch `source`, at once; how many those are."""
        return refs.create_everywhere(self._access, name, source)

    def delete_branch(self, name: str) -> int:
        """Delete a registry-wide branch in every dataset; how many those were. Versions stay."""
        return refs.delete_everywhere(self._access, name)

    def branches(self) -> list[RegistryBranch]:
        """The registry-wide branches, by name."""
        return refs.list_everywhere(self._access)

    # --- keeping house ---------------------------------------------------------------------------------------------

    @overload
    def expire(
        self,
        policy: Policy,
        *,
        dry_run: Literal[True],
        live_runs: Collection[str] | None = None,
        progress: Progress = silent,
    ) -> ExpirePlan: ...
    @overload
    def expire(
        self,
        policy: Policy,
        *,
        dry_run: Literal[False] = False,
        live_runs: Collection[str] | None = None,
        progress: Progress = silent,
    ) -> Expired: ...
    def expire(
        self,
        policy: Policy,
        *,
        dry_run: bool = False,
        live_runs: Collection[str] | None = None,
        progress: Progress = silent,
    ) -> ExpirePlan | Expired:
        """Delete the versions that no rule of a policy keeps; with `dry_run`, only the plan of that (see `apply`).

        Heads of branches and tags stay, and what pipeline runs have read or written: the runs of `live_runs`, or of the
        last day when that is not given.
        """
        plan = expiry.plan(self._access, policy, live_runs=live_runs)
        return plan if dry_run else expiry.apply(self._access, plan, live_runs=live_runs, progress=progress)

    @overload
    def collect(
        self, *, older_than: timedelta = GRACE, dry_run: Literal[True], progress: Progress = silent
    ) -> CollectPlan: ...
    @overload
    def collect(
        self, *, older_than: timedelta = GRACE, dry_run: Literal[False] = False, progress: Progress = silent
    ) -> Collected: ...
    def collect(
        self, *, older_than: timedelta = GRACE, dry_run: bool = False, progress: Progress = silent
    ) -> CollectPlan | Collected:
        """Remove the files that nothing names, once they are older than this; with `dry_run`, only the plan of that.

        Safe beside any number of writers and other collections.
        """
        plan = collection.plan(self._access, older_than)
        return plan if dry_run else collection.apply(self._access, plan, progress)

    @overload
    def sweep(
        self,
        *,
        older_than: timedelta = GRACE,
        max_share: float = SHARE,
        dry_run: Literal[True],
        progress: Progress = silent,
    ) -> SweepPlan: ...
    @overload
    def sweep(
        self,
        *,
        older_than: timedelta = GRACE,
        max_share: float = SHARE,
        dry_run: Literal[False] = False,
        progress: Progress = silent,
    ) -> Collected: ...
    def sweep(
        self,
        *,
        older_than: timedelta = GRACE,
        max_share: float = SHARE,
        dry_run: bool = False,
        progress: Progress = silent,
    ) -> SweepPlan | Collected:
        """Remove objects from the store that the catalog does not know; with `dry_run`, only the plan of that.

        Raises `SweepRefused` when they are more than `max_share` of the store: what dead writers leave is collected, so the
        catalog was probably restored from an older backup (`verify(repair=True)` takes their content into `lost+found`), or
        the store is another catalog's too. `max_share=1` says that they may go.
        """
        plan = collection.plan_sweep(self._access, older_than, max_share, progress)
        return plan if dry_run else collection.apply_sweep(self._access, plan, progress)

    @overload
    def apply(
        self, plan: ExpirePlan, *, live_runs: Collection[str] | None = None, progress: Progress = silent
    ) -> Expired: ...
    @overload
    def apply(self, plan: CollectPlan | SweepPlan, *, progress: Progress = silent) -> Collected: ...
    def apply(
        self,
        plan: ExpirePlan | CollectPlan | SweepPlan,
        *,
        live_runs: Collection[str] | None = None,
        progress: Progress = silent,
    ) -> Expired | Collected:
        """Do what a plan says. What came to be needed since it was made stays; `live_runs` as in `expire`."""
        match plan:
            case ExpirePlan():
                return expiry.apply(self._access, plan, live_runs=live_runs, progress=progress)
            case CollectPlan():
                return collection.apply(self._access, plan, progress)
            case SweepPlan():
                return collection.apply_sweep(self._access, plan, progress)

    def verify(
        self,
        *,
        deep: bool | tuple[int, int] = False,
        repair: bool = False,
        older_than: timedelta = GRACE,
        progress: Progress = silent,
    ) -> Verification:
        """Check every digest of the catalog and look for every object; with `deep`, read and hash the content of all files
        too, or of a share of them: (2, 7) is the second of seven. Writers are not kept out.

        `repair` mends what is safe to mend and puts files whose bytes are gone or wrong into quarantine.
        """
        share = (1, 1) if deep is True else deep or None
        return verification.verify(self._access, share=share, repair=repair, older_than=older_than, progress=progress)

    def copy_to(
        self,
        other: "Registry",
        *,
        datasets: str | Sequence[str] = ("*",),
        refs: str | Sequence[str] | None = None,
        progress: Progress = silent,
    ) -> Copied:
        """Copy datasets (patterns of names) with their histories, branches and tags into another registry, or only what
        `refs` (names of branches and tags) reach. Only what is missing there travels; a stopped copy can be repeated.

        Raises `InputError` (both have one store), `AlreadyExists` (other histories under the same numbers).
        """
        access = getattr(other, "_access", None)
        if access is None:
            raise InputError(
                "A copy goes from catalog to catalog and from store to store: open the other registry by its own."
            )
        chosen = None if refs is None else several(refs)
        return copying.copy(self._access, access, wanted=several(datasets), refs=chosen, progress=progress)

    # --- legacy catalogs -------------------------------------------------------------------------------------------

    @overload
    def adopt(
        self,
        *,
        dry_run: Literal[True],
        any_size: bool = False,
        give_up: Sequence[int] = (),
        progress: Progress = silent,
    ) -> AdoptionPlan: ...
    @overload
    def adopt(
        self,
        *,
        dry_run: Literal[False] = False,
        any_size: bool = False,
        give_up: Sequence[int] = (),
        progress: Progress = silent,
    ) -> Adoption: ...
    def adopt(
        self, *, dry_run: bool = False, any_size: bool = False, give_up: Sequence[int] = (), progress: Progress = silent
    ) -> AdoptionPlan | Adoption:
        """Take the bytes of a legacy catalog into the store: hashed, deduplicated, counted. Can be repeated."""
        if dry_run:
            return adoption.plan(self._access)
        return adoption.adopt(self._access, progress, any_size=any_size, give_up=give_up)

    def __repr__(self) -> str:
        return f"<Registry {self.location} as {self.actor}>"


def rebound(catalog: str, store: str) -> str:
    """Bind a catalog to a store, whatever it was bound to; the id of the store. For who knows that they belong together."""
    opened = Catalog(catalog)
    try:
        opened.ready()
        kept = open_store(store)
        return binding.rebind(Access(opened, kept, Cache(kept), Actor(_user(), is_owner=True, door="cli")))
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
    raise NotFound(f"There is no registry at {place}. Create one with: dataset-registry init {options}", location=place)
