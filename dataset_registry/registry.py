"""The public registry interface, embedded in this process or on a server."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, overload

from dataset_registry.dataset import Dataset, Draft, Strategies
from dataset_registry.errors import InputError
from dataset_registry.model.actors import Grant, Kind, NewToken, Permission, Protection, Token, User
from dataset_registry.model.audit import AuditCheck, AuditEntry
from dataset_registry.model.checks import Taint
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
from dataset_registry.model.merge_plans import MergeOptions
from dataset_registry.model.names import MAIN, several
from dataset_registry.model.progress import Progress, silent
from dataset_registry.model.publishing import Consistency, PublishPlan, RevertPlan, Run
from dataset_registry.model.records import FileRecord, Freeze, RegistryBranch
from dataset_registry.model.retention import Policy
from dataset_registry.model.reviews import EventKind, Review, ReviewDetails, ReviewState
from dataset_registry.model.strategies import strategies_of
from dataset_registry.model.verification import Verification
from dataset_registry.version import Version

if TYPE_CHECKING:
    from dataset_registry.store import Store


class Registry(ABC):
    """A registry of datasets and their versions."""

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
        """Open a registry.

        Pass either a `folder` (SQLite and files, created on first use), or the URLs of a `catalog` and a `store`, or
        the address of a server (`https://…`) as `folder` with an API `token`. With `create=False`, a missing folder or
        SQLite catalog is an error (`NotFound`), so that a mistyped path does not create an empty registry.

        `catalog` is `sqlite:///…` or `postgresql+psycopg://…`; `store` is a folder, a `file://` URL,
        `s3://bucket/prefix`, `gs://…` or `az://…`. `actor` is the user to act as, with its permissions; without one you
        are the owner, who may do everything and commits under the user name of the operating system.
        `compression="zstd"` compresses new CSV and JSON files if that saves space; readers see the uncompressed
        content. `verify_reads` hashes every stored file before it is read; otherwise the store is trusted (see
        docs/operations.md). `interface` is recorded in the audit log.

        Raises `CatalogOutdated` for a PostgreSQL catalog that needs `dataset-registry db upgrade`, `StoreMismatch` for
        a catalog with the store of another one, `NotAuthenticated` for an invalid token, `InputError`.
        """
        if str(folder).lower().startswith(("https://", "http://")):
            if catalog is not None or store is not None or actor is not None or compression is not None:
                raise InputError(
                    "A server has its own catalog and store, and the token identifies the user: leave these arguments out."
                )
            for library in ("httpx", "tenacity"):
                require(library, "remote", "The client of a server")
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
        """Whether the registry was opened by its catalog and store without an actor, with all permissions."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The catalog and the store, without secrets."""

    @abstractmethod
    def close(self) -> None:
        """Close database connections and delete local copies of remote files.

        The next use reconnects.
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
        """Start a draft by the dataset's name; the commit creates the dataset if needed. `options` as in
        `Dataset.draft`.

        A failed commit creates no dataset. Raises `InvalidName`.
        """

    def version(self, address: str) -> Version:
        """The version at an address such as `raw/flights@main~2`; without `@`, the head of `main`."""
        dataset, ref = self.at(address)
        return dataset.version(MAIN if ref is None else ref)

    @abstractmethod
    def at(self, address: str) -> tuple[Dataset, str | None]:
        """The dataset and the ref of an address such as `raw/flights@main~2`; the ref is None if the address has none.

        Raises `InvalidRef` if the whole text is also the name of a legacy dataset: quote the name to resolve the
        ambiguity.
        """

    # --- files -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def file(self, content_hash: str) -> FileRecord:
        """The stored file with these first digits of its SHA-256. Raises `NotFound`."""

    @abstractmethod
    def files(self) -> Iterator[FileRecord]:
        """Every stored file, oldest first."""

    @abstractmethod
    def open_file(self, content_hash: str) -> BinaryIO:
        """Open a stored file's content as a stream, by the first digits of its SHA-256.

        Raises `NotFound`, `InputError` for a table in several parts.
        """

    # --- who may what ----------------------------------------------------------------------------------------------

    @abstractmethod
    def create_user(
        self, name: str, *, role: str = "member", kind: Kind = "person", members: str | Sequence[str] = ()
    ) -> User:
        """Create a user (`person`, `service`) with a role, or a `group` with members.

        Roles: `administrator` (everything), `member` (may create datasets, and what was granted), `guest` (what was granted).
        Once the first user exists, an `actor` must be a user. Opening the registry without an actor still makes you its
        owner.
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

        The token can do what its user can, up to `permission`, on datasets whose name starts with `prefix`. It expires
        after `lasts`; without that, never.
        """

    @abstractmethod
    def tokens(self, user: str | None = None) -> list[Token]:
        """The tokens of a user, newest first; None lists those of all users (administrators only)."""

    @abstractmethod
    def revoke_token(self, token_id: int) -> Token:
        """Revoke a token. Raises `NotFound`."""

    @abstractmethod
    def grant(self, user: str, permission: Permission, name: str | None = None, *, file: str | None = None) -> Grant:
        """Grant a user or group `read`, `write` or `admin` on a resource. Replaces its grant on the same resource.

        The resource is a dataset, all datasets under a prefix (`raw/`; empty for all), or the file with a hash.
        Raises `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def revoke(self, user: str, name: str | None = None, *, file: str | None = None) -> None:
        """Revoke the grant of a user or group on a dataset, a prefix or a file. Raises `NotFound`."""

    @abstractmethod
    def grants(self, name: str | None = None, *, file: str | None = None, user: str | None = None) -> list[Grant]:
        """Grants on a dataset, prefix or file, of a user and its groups; without arguments, all that you can see."""

    @abstractmethod
    def protect(
        self,
        name: str,
        branch: str = MAIN,
        *,
        allow: str | Sequence[str] = (),
        approvals: int = 0,
        checks: bool = False,
    ) -> Protection:
        """Restrict moving a branch of a dataset, or of all under a prefix, to admins and `allow` (users, groups).

        With `approvals` (how many) or `checks` (all of them passed, and there is one), the branch moves by the merge of a review
        only, for administrators too. The owner of an embedded registry is not bound.
        """

    @abstractmethod
    def unprotect(self, name: str, branch: str = MAIN) -> None:
        """Remove the protection of a branch. Raises `NotFound`."""

    @abstractmethod
    def protections(self, name: str | None = None) -> list[Protection]:
        """The protected branches of a dataset, by its own rules and those of prefixes; without a name, all rules."""

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
        """Every entry, oldest first, with its stored hash."""

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

        Takes effect in other processes within two seconds. For administrators. Raises `InputError` (no reason) and
        `PermissionDenied`.
        """

    @abstractmethod
    def unfreeze(self) -> None:
        """End the read-only mode. For administrators. Raises `PermissionDenied`."""

    @property
    @abstractmethod
    def frozen(self) -> Freeze | None:
        """The reason if the registry is read-only, else None."""

    # --- registry-wide branches ------------------------------------------------------------------------------------

    @abstractmethod
    def create_branch(self, name: str, source: str = MAIN) -> int:
        """Create a branch in every dataset that has the branch `source`, in one transaction. Returns their number."""

    @abstractmethod
    def delete_branch(self, name: str) -> int:
        """Delete a registry-wide branch in every dataset; versions stay. Returns the number of datasets."""

    @abstractmethod
    def branches(self) -> list[RegistryBranch]:
        """The registry-wide branches, by name."""

    # --- publishing ------------------------------------------------------------------------------------------------

    def plan_publish(
        self,
        branch: str,
        into: str = MAIN,
        *,
        datasets: str | Sequence[str] | None = None,
        strategy: Strategies = "fail",
    ) -> PublishPlan:
        """The plan of a publication: a merge for each dataset in which the branch has versions that the target lacks.

        `datasets` are names or patterns such as `raw/*`. Nothing is changed. Raises `NotFound` if no dataset has the branch.
        """
        names = None if datasets is None else several(datasets)
        return self._plan_publish(branch, into, names, MergeOptions(strategies_of(strategy)))

    def publish(
        self,
        branch: str,
        into: str = MAIN,
        *,
        datasets: str | Sequence[str] | None = None,
        strategy: Strategies = "fail",
        allow_moved_inputs: bool = False,
        message: str | None = None,
    ) -> list[Version]:
        """Merge a branch into another in all datasets that have it, in one transaction: all branches move, or none.

        Returns the new heads. Raises `MergeConflict` for conflicts in any dataset, and `ConflictError` if the target moved
        under an input: if a version was built from another version of a dataset than the target has. `allow_moved_inputs`
        publishes it nevertheless.
        """
        names = None if datasets is None else several(datasets)
        options = MergeOptions(strategies_of(strategy), message=message)
        return self._publish(branch, into, names, options, allow_moved_inputs=allow_moved_inputs)

    # --- reviews ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def create_review(self, branch: str, into: str = MAIN, *, title: str, description: str | None = None) -> Review:
        """Create a review of a branch, which is to be merged into another one in all datasets that have it.

        Raises `NotFound` (no dataset has the branch), `AlreadyExists` (an open review of the same), `PermissionDenied`.
        """

    @abstractmethod
    def reviews(self, *, state: ReviewState | None = None, branch: str | None = None) -> list[Review]:
        """The reviews of datasets that you can read, newest first."""

    @abstractmethod
    def review(self, review_id: int) -> ReviewDetails:
        """A review with its datasets and what is missing in each, its comments and verdicts. Raises `NotFound`."""

    def comment_review(self, review_id: int, comment: str) -> ReviewDetails:
        """Add a comment to a review. Raises `NotFound`, `ConflictError` (it is over)."""
        return self._review_event(review_id, "comment", comment, None)

    def approve_review(self, review_id: int, comment: str | None = None, *, seen: str | None = None) -> ReviewDetails:
        """Approve what the branch of a review is at now, in the datasets whose target you may move.

        The approval does not count any longer where the branch moves. Approvals of who created the review, or committed a version
        that it brings, do not count. With `seen`, that of the `ReviewDetails` that you looked at, it is about what you saw.
        Raises `NotFound`, `ConflictError` (it is over, or the branch is not what was seen), `PermissionDenied`.
        """
        return self._review_event(review_id, "approve", comment, seen)

    def reject_review(self, review_id: int, comment: str | None = None, *, seen: str | None = None) -> ReviewDetails:
        """Reject what the branch of a review is at now: it cannot be merged until you approve, or the branch moves."""
        return self._review_event(review_id, "reject", comment, seen)

    @abstractmethod
    def _review_event(
        self, review_id: int, kind: EventKind, comment: str | None, seen: str | None
    ) -> ReviewDetails: ...

    @abstractmethod
    def close_review(self, review_id: int) -> Review:
        """Close a review without merging it. Raises `NotFound`, `ConflictError`, `PermissionDenied`."""

    def merge_review(
        self,
        review_id: int,
        *,
        strategy: Strategies = "fail",
        allow_moved_inputs: bool = False,
        message: str | None = None,
        seen: str | None = None,
    ) -> list[Version]:
        """Merge a review: publish its branch, in one transaction, if nothing is missing. Returns the new heads.

        `seen` as in `approve_review`. Raises as `publish`, and `ConflictError` if approvals or checks are missing, or if there is
        nothing to merge.
        """
        options = MergeOptions(strategies_of(strategy), message=message)
        return self._merge_review(review_id, options, allow_moved_inputs=allow_moved_inputs, seen=seen)

    @abstractmethod
    def _merge_review(
        self, review_id: int, options: MergeOptions, *, allow_moved_inputs: bool, seen: str | None
    ) -> list[Version]: ...

    # --- runs ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def run(self, run_id: str) -> Run:
        """The versions that a pipeline run wrote and read. Raises `NotFound`."""

    @abstractmethod
    def finish_run(self, run_id: str, *, succeeded: bool) -> list[Taint]:
        """Record how a pipeline run ended. What a failed run wrote is tainted: it cannot reach a protected branch.

        A run that is executed again under the same id and succeeds is not tainted any longer. Returns the taints that the run
        has now. Raises `NotFound` if it wrote nothing.
        """

    def plan_revert_run(self, run_id: str, branch: str = MAIN, *, strategy: Strategies = "fail") -> RevertPlan:
        """The plan of undoing what a run wrote to a branch, and the versions that were built on it. Nothing is changed."""
        return self._plan_revert_run(run_id, branch, MergeOptions(strategies_of(strategy)))

    def revert_run(
        self,
        run_id: str,
        branch: str = MAIN,
        *,
        strategy: Strategies = "fail",
        force: bool = False,
        message: str | None = None,
    ) -> list[Version]:
        """Undo what a run wrote to a branch, in all of its datasets, in one transaction. Returns the new heads.

        Raises `ConflictError` if versions on the branch were built from its versions, unless `force`; `MergeConflict` if
        later versions changed the same rows.
        """
        return self._revert_run(run_id, branch, MergeOptions(strategies_of(strategy), message=message), force=force)

    @abstractmethod
    def consistent(self, branch: str = MAIN) -> Consistency:
        """Whether the heads of a branch belong together; `.torn` lists those that do not.

        The inputs of each head must be heads or ancestors of heads of the branch (of main where a dataset lacks it), and there
        must be a sequence of runs, each reading the newest versions at its time, that ends at these heads.
        """

    @abstractmethod
    def _plan_publish(
        self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions
    ) -> PublishPlan: ...

    @abstractmethod
    def _publish(
        self, branch: str, into: str, names: Sequence[str] | None, options: MergeOptions, *, allow_moved_inputs: bool
    ) -> list[Version]: ...

    @abstractmethod
    def _plan_revert_run(self, run_id: str, branch: str, options: MergeOptions) -> RevertPlan: ...

    @abstractmethod
    def _revert_run(self, run_id: str, branch: str, options: MergeOptions, *, force: bool) -> list[Version]: ...

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

        Heads of branches, tags, and versions that pipeline runs have read or written are kept: by the runs in
        `live_runs`, or within the last day if that is None.
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

        Safe to run concurrently with writers and other collections.
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
        """Remove objects from the store that are unknown to the catalog; with `dry_run`, return the plan only.

        Raises `SweepRefused` if they are more than `max_share` of the store. Leftovers of dead writers are known and
        collected, so the catalog was probably restored from an older backup (`verify(repair=True)` adds their content
        to `lost+found`), or another catalog uses the store, too. `max_share=1` removes them all.
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
        """Apply a plan, except for what has been referenced or used since. `live_runs` as in `expire`."""
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
        """Check every digest of the catalog and the existence of every object, without blocking writers.

        `deep` also reads and hashes the content of all files, or of a share of them: (2, 7) is the second of seven.
        `repair` applies the safe repairs, and quarantines files whose bytes are missing or wrong.
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
        """Copy datasets (patterns of names) with their histories, branches and tags into another registry.

        `refs` (names of branches and tags) limits the copy to what they reach. Only missing data is transferred; a
        stopped copy can be repeated.

        Raises `InputError` if both have the same store, `AlreadyExists` if version numbers exist with another history.
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
        """Adopt the files of a legacy catalog into the store, hashed and deduplicated. Can be repeated.

        `any_size` also adopts files whose size differs from the catalog; `give_up` lists ids of files to declare lost.
        """
        return self._plan_adoption() if dry_run else self._adopt(any_size, give_up, progress)

    @abstractmethod
    def _plan_adoption(self) -> AdoptionPlan: ...

    @abstractmethod
    def _adopt(self, any_size: bool, give_up: Sequence[int], progress: Progress) -> Adoption: ...

    def __repr__(self) -> str:
        return f"<Registry {self.location} as {self.actor}>"
