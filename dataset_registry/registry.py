"""The registry as a user holds it: in this process, or on a server."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, overload

from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import InputError
from dataset_registry.model.actors import Grant, Kind, NewToken, Permission, Protection, Token, User
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
from dataset_registry.model.names import MAIN
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.records import FileRecord, Freeze, RegistryBranch
from dataset_registry.model.retention import Policy
from dataset_registry.model.verification import Verification
from dataset_registry.version import Version

if TYPE_CHECKING:
    from dataset_registry.store import Store


class Registry(ABC):
    """Datasets and their versions, in one place."""

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        catalog: str | None = None,
        store: "str | Store | None" = None,
        actor: str | None = None,
        token: str | None = None,
        compression: str | None = None,
        verify_reads: bool = False,
        interface: str = "python",
        create: bool = True,
    ) -> "Registry":
        """Open a registry: in a folder (SQLite and files, created on first use), by the URLs of its catalog and store, or the
        one of a server by its address (`https://…`) with an API token. With `create=False` a folder or a SQLite catalog that is
        not there is an error (`NotFound`), so that a mistyped path does not become a second, empty registry.

        `catalog` is `sqlite:///…` or `postgresql+psycopg://…`; `store` a folder, a `file://` URL, `s3://bucket/prefix`,
        `gs://…` or `az://…`. `actor` acts as that user, with its permissions; without one you are the owner, who may do
        everything and commits under the name that the operating system knows. `compression="zstd"` compresses new CSV and
        JSON files where that pays; readers see the content either way. `verify_reads` hashes every stored file before anything
        is read from it, where otherwise the store is trusted (see docs/operations.md). `interface` is what the audit
        log says of how you came in.

        Raises `CatalogOutdated` for a PostgreSQL catalog that needs
        `dataset-registry db upgrade`, `StoreMismatch` for a catalog with another one's store, `InputError`, `NotAuthenticated`
        for an invalid token.
        """
        if str(folder).lower().startswith(("https://", "http://")):
            if catalog is not None or store is not None or actor is not None or compression is not None:
                raise InputError(
                    "A server has its own catalog and store, and the token identifies the user: leave these arguments out."
                )
            require("httpx", "remote", "The client of a server")
            from dataset_registry.remote import open_remote

            return open_remote(str(folder), token)
        from dataset_registry.embedded import open_embedded

        return open_embedded(
            folder,
            catalog=catalog,
            store=store,
            actor=actor,
            compression=compression,
            verify_reads=verify_reads,
            interface=interface,
            create=create,
        )

    @property
    @abstractmethod
    def actor(self) -> str:
        """The current user."""

    @property
    @abstractmethod
    def is_owner(self) -> bool:
        """Whether all permissions are granted: it was opened by its catalog and store, without an actor."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The catalog and the store, without secrets."""

    @abstractmethod
    def close(self) -> None:
        """Close database connections and delete local copies of remote files.

        The registry connects again when it is used again.
        """

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- datasets --------------------------------------------------------------------------------------------------

    @abstractmethod
    def create_dataset(self, name: str, *, description: str | None = None) -> Dataset:
        """Create a dataset. Raises `InvalidName`, `AlreadyExists`."""

    @abstractmethod
    def dataset(self, name: str | int) -> Dataset:
        """The dataset of this name, or with this id. Raises `NotFound`."""

    @abstractmethod
    def datasets(self, *, prefix: str = "") -> list[Dataset]:
        """The datasets whose name starts with `prefix`, by name."""

    @abstractmethod
    def draft(self, name: str, branch: str = MAIN, *, description: str | None = None, **options: Any) -> Draft:
        """A draft of a dataset, which is created with the commit if needed; `options` as in `Dataset.draft`.

        A failed commit creates no dataset. Raises `InvalidName`.
        """

    def version(self, address: str) -> Version:
        """The version at an address such as `raw/flights@main~2`; without `@`, the head of `main`."""
        dataset, ref = self.at(address)
        return dataset.version(MAIN if ref is None else ref)

    @abstractmethod
    def at(self, address: str) -> tuple[Dataset, str | None]:
        """The dataset of an address such as `raw/flights@main~2`, and the ref, None where it has none.

        Raises `InvalidRef` where a dataset of an existing catalog has the whole text as its name: quoted, either can be meant.
        """

    # --- files -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def file(self, content_hash: str) -> FileRecord:
        """A stored file by the first digits of its SHA-256, with its size and reference count. Raises `NotFound`."""

    @abstractmethod
    def files(self) -> Iterator[FileRecord]:
        """Every stored file, oldest first."""

    @abstractmethod
    def open_file(self, content_hash: str) -> BinaryIO:
        """A stream over a stored file's content, by the first digits of its SHA-256. Raises `NotFound`, `InputError` (a table in
        several parts)."""

    # --- who may what ----------------------------------------------------------------------------------------------

    @abstractmethod
    def create_user(
        self, name: str, *, role: str = "member", kind: Kind = "person", members: str | Sequence[str] = ()
    ) -> User:
        """Create a user (`person`, `service`) with a role, or a `group` with members.

        Roles: `administrator` (everything), `member` (may create datasets, and what was granted), `guest` (what was granted).
        From the first user on, an `actor` must be one; who opens the registry without naming one stays its owner.
        Raises `InvalidName`, `AlreadyExists`.
        """

    @abstractmethod
    def update_user(
        self,
        name: str,
        *,
        role: str | None = None,
        disabled: bool | None = None,
        members: str | Sequence[str] | None = None,
    ) -> User:
        """Change a user's role, disable or enable it, or replace the members of a group. Raises `NotFound`."""

    @abstractmethod
    def users(self) -> list[User]:
        """Every user and group, by name."""

    @abstractmethod
    def create_token(
        self,
        user: str | None = None,
        *,
        name: str = "token",
        permission: Permission = "admin",
        prefix: str = "",
        lasts: timedelta | None = None,
    ) -> NewToken:
        """Create an API token for a user (None: yourself). Its `secret` is shown only once.

        It can do what its user can, up to `permission`, on datasets whose name starts with `prefix`, as long as it `lasts`.
        """

    @abstractmethod
    def tokens(self, user: str | None = None) -> list[Token]:
        """The tokens of a user, newest first; of all users when None, for administrators."""

    @abstractmethod
    def revoke_token(self, token_id: int) -> Token:
        """Revoke a token. Raises `NotFound`."""

    @abstractmethod
    def grant(self, user: str, permission: Permission, name: str | None = None, *, file: str | None = None) -> Grant:
        """Let a user or group `read`, `write` or `admin` a dataset, all datasets under a prefix (`raw/`; empty for all), or
        the file with a hash. It replaces what they had there. Raises `NotFound`, `PermissionDenied`."""

    @abstractmethod
    def revoke(self, user: str, name: str | None = None, *, file: str | None = None) -> None:
        """Revoke the grant of a user or group on a dataset, a prefix or a file. Raises `NotFound`."""

    @abstractmethod
    def grants(self, name: str | None = None, *, file: str | None = None, user: str | None = None) -> list[Grant]:
        """Grants on a dataset, prefix or file, of a user and its groups, or all that you can see."""

    @abstractmethod
    def protect(self, name: str, branch: str = MAIN, *, allow: str | Sequence[str] = ()) -> Protection:
        """Restrict moving a branch of a dataset, or of all under a prefix, to admins and `allow` (users, groups)."""

    @abstractmethod
    def unprotect(self, name: str, branch: str = MAIN) -> None:
        """Remove the protection of a branch. Raises `NotFound`."""

    @abstractmethod
    def protections(self, name: str | None = None) -> list[Protection]:
        """The protected branches of a dataset, by its own rules and those of prefixes; all of them without a name."""

    # --- who did what ----------------------------------------------------------------------------------------------

    @abstractmethod
    def audit(
        self,
        *,
        dataset: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        """Entries of the audit log, newest first; `before` is the id of the previous page's last entry."""

    @abstractmethod
    def export_audit(self) -> Iterator[tuple[AuditEntry, str]]:
        """Every entry in order, each with the hash that it carries."""

    @abstractmethod
    def seal_audit(self) -> int:
        """Seal the unsealed entries, as every collection does. Returns their number."""

    @abstractmethod
    def check_audit(self) -> AuditCheck:
        """Check that no entry was changed, removed or added since it was sealed."""

    # --- read-only mode --------------------------------------------------------------------------------------------

    @abstractmethod
    def freeze(self, reason: str) -> Freeze:
        """Make the registry read-only until `unfreeze`: writes raise `RegistryFrozen` with the reason.

        Other processes obey within two seconds. For administrators. Raises `InputError` (no reason), `PermissionDenied`.
        """

    @abstractmethod
    def unfreeze(self) -> None:
        """End the read-only mode. For administrators. Raises `PermissionDenied`."""

    @property
    @abstractmethod
    def frozen(self) -> Freeze | None:
        """The reason if the registry is read-only, else None."""

    # --- branches over all datasets --------------------------------------------------------------------------------

    @abstractmethod
    def create_branch(self, name: str, source: str = MAIN) -> int:
        """Create a branch in every dataset that has the branch `source`, in one transaction. Returns their number."""

    @abstractmethod
    def delete_branch(self, name: str) -> int:
        """Delete a registry-wide branch in every dataset; versions stay. Returns the number of datasets."""

    @abstractmethod
    def branches(self) -> list[RegistryBranch]:
        """The registry-wide branches, by name."""

    # --- maintenance -----------------------------------------------------------------------------------------------

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
        """Delete the versions that no rule of a policy keeps; with `dry_run`, return the plan only (see `apply`).

        Heads of branches and tags stay, and what pipeline runs have read or written: the runs of `live_runs`, or of the
        last day when that is not given.
        """
        plan = self._plan_expiry(policy, live_runs)
        return plan if dry_run else self.apply(plan, live_runs=live_runs, progress=progress)

    @abstractmethod
    def _plan_expiry(self, policy: Policy, live_runs: Collection[str] | None) -> ExpirePlan: ...

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
        """Delete the unreferenced files that are older than this; with `dry_run`, return the plan only.

        Safe beside any number of writers and other collections.
        """
        plan = self._plan_collection(older_than)
        return plan if dry_run else self.apply(plan, progress=progress)

    @abstractmethod
    def _plan_collection(self, older_than: timedelta) -> CollectPlan: ...

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
        """Remove objects from the store that the catalog does not know; with `dry_run`, return the plan only.

        Raises `SweepRefused` when they are more than `max_share` of the store: what dead writers leave is collected, so the
        catalog was probably restored from an older backup (`verify(repair=True)` takes their content into `lost+found`), or
        the store is another catalog's too. `max_share=1` says that they may go.
        """
        plan = self._plan_sweep(older_than, max_share, progress)
        return plan if dry_run else self.apply(plan, progress=progress)

    @abstractmethod
    def _plan_sweep(self, older_than: timedelta, max_share: float, progress: Progress) -> SweepPlan: ...

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
        """Apply a plan. What is referenced or in use since stays; `live_runs` as in `expire`."""
        return self._apply(plan, live_runs, progress)

    @abstractmethod
    def _apply(
        self, plan: ExpirePlan | CollectPlan | SweepPlan, live_runs: Collection[str] | None, progress: Progress
    ) -> Expired | Collected: ...

    @abstractmethod
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

        `repair` repairs what is safe to repair and puts files whose bytes are gone or wrong into quarantine.
        """

    @abstractmethod
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
        """Adopt the files of a legacy catalog into the store: hashed and deduplicated. Can be repeated."""
        return self._plan_adoption() if dry_run else self._adopt(any_size, give_up, progress)

    @abstractmethod
    def _plan_adoption(self) -> AdoptionPlan: ...

    @abstractmethod
    def _adopt(self, any_size: bool, give_up: Sequence[int], progress: Progress) -> Adoption: ...

    def __repr__(self) -> str:
        return f"<Registry {self.location} as {self.actor}>"
