"""Every error the registry raises, grouped by what the caller should do about it.

Each class has a stable `code` (interfaces map it to an exit code or an HTTP status), keeps the values it is about in
`fields`, and its message ends with the next step.
"""

from typing import ClassVar


class RegistryError(Exception):
    """Base class of the registry's errors."""

    code: ClassVar[str] = "registry_error"

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


# --- fix the input -------------------------------------------------------------------------------------------------


class InputError(RegistryError):
    """Invalid input."""

    code = "invalid_input"


class InvalidName(InputError):
    """Invalid name of a dataset, component, branch or tag."""

    code = "invalid_name"


class InvalidRef(InputError):
    """Invalid ref, or an ambiguous digest prefix."""

    code = "invalid_ref"


class UnsupportedType(InputError):
    """A type that cannot be stored or loaded."""

    code = "unsupported_type"


class UnreadableFile(InputError):
    """A file that does not match its format: truncated, ragged, in another encoding, or empty."""

    code = "unreadable_file"


class NotFound(InputError):
    """The dataset, version, component, ref or file does not exist, or the caller may not see it."""

    code = "not_found"


class AlreadyExists(InputError):
    """The name is taken."""

    code = "already_exists"


class MigrationRefused(InputError):
    """The catalog cannot be migrated in its current state. Nothing was changed."""

    code = "migration_refused"


class DowngradeRefused(InputError):
    """A downgrade of the catalog would lose data that the older revision cannot store. `losses` lists it."""

    code = "downgrade_refused"


class InUse(InputError):
    """The object is still referenced."""

    code = "in_use"


class TagImmutable(InputError):
    """Tags never move, and the name of a deleted tag cannot be reused."""

    code = "tag_immutable"


class SweepRefused(InputError):
    """A sweep would remove more of the store than allowed; the catalog is probably outdated."""

    code = "sweep_refused"


class PayloadTooLarge(InputError):
    """A request or a file exceeds a size limit of the server."""

    code = "payload_too_large"


class RangeNotSatisfiable(InputError):
    """A range of bytes that lies outside of the file."""

    code = "range_not_satisfiable"


class PreconditionFailed(InputError):
    """The resource is not in the expected state (`If-Match`)."""

    code = "precondition_failed"


# --- check the state, then retry -----------------------------------------------------------------------------------


class ConflictError(RegistryError):
    """A conflict with another writer."""

    code = "conflict"


class BranchMoved(ConflictError):
    """The branch no longer points where the caller expected it to."""

    code = "branch_moved"


class CommitConflict(ConflictError):
    """A component that this commit writes was changed on the branch since the commit's base."""

    code = "commit_conflict"


class MergeConflict(ConflictError):
    """A merge has conflicts. Nothing was changed. `conflicts` lists them."""

    code = "merge_conflict"


class Tainted(ConflictError):
    """A protected branch would get content of a failed run, or on which a blocking check failed. `taints` lists them."""

    code = "tainted"


class RetryLater(RegistryError):
    """A temporary condition: a lock timeout, an expired hold, an unreachable server."""

    code = "retry_later"


class BodyTimeout(RetryLater):
    """A client timed out while sending its request."""

    code = "body_timeout"


class TooManyRequests(RetryLater):
    """The server has too many concurrent requests."""

    code = "too_many_requests"


# --- ask for access ------------------------------------------------------------------------------------------------


class PermissionDenied(RegistryError):
    """The actor may see the resource, but may not do this to it."""

    code = "permission_denied"


class NotAuthenticated(RegistryError):
    """No valid credentials: no token, or one that is unknown, expired or revoked."""

    code = "not_authenticated"


# --- call the operator ---------------------------------------------------------------------------------------------


class CatalogOutdated(RegistryError):
    """The catalog has another revision than this package; the message names the command that fixes it."""

    code = "catalog_outdated"


class RegistryFrozen(RegistryError):
    """An administrator made the registry read-only, for a reason that the message gives. Reads continue."""

    code = "registry_frozen"


class StoreMismatch(RegistryError):
    """A catalog was opened with a store that is not its own."""

    code = "store_mismatch"


class CatalogRefused(InputError):
    """The database refuses the catalog's URL: its user, its password, its database or its grants are wrong."""

    code = "catalog_refused"


class NotAdopted(RegistryError):
    """A legacy dataset whose files are not adopted yet: readable, not writable."""

    code = "not_adopted"


class StorageError(RegistryError):
    """The disk or the object store refused: full, read-only, unreachable."""

    code = "storage_error"


class CorruptionError(RegistryError):
    """Stored bytes or rows contradict their digest, or are missing. Nothing was changed; run a verification."""

    code = "corruption"
