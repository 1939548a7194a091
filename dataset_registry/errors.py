"""Every error the registry raises, grouped by what the caller should do about it.

Each class has a stable `code` (doors map it to an exit code or an HTTP status), keeps the values it is about in
`fields`, and its message ends with the next step.
"""

from typing import ClassVar


class RegistryError(Exception):
    """Anything the registry refuses or fails to do."""

    code: ClassVar[str] = "registry_error"

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.fields = fields


# --- fix the input -------------------------------------------------------------------------------------------------


class InputError(RegistryError):
    """What was asked cannot be done as asked; another input can."""

    code = "invalid_input"


class InvalidName(InputError):
    """A dataset, component, branch or tag name that the registry does not accept."""

    code = "invalid_name"


class InvalidRef(InputError):
    """A text that names no version in any form a ref may take, or an abbreviated digest that names several."""

    code = "invalid_ref"


class UnsupportedType(InputError):
    """A value that the registry does not know how to store or to produce."""

    code = "unsupported_type"


class UnreadableFile(InputError):
    """Bytes that are not what their format says: truncated, ragged, in another encoding, or empty."""

    code = "unreadable_file"


class NotFound(InputError):
    """The thing named does not exist."""

    code = "not_found"


class AlreadyExists(InputError):
    """The name is taken."""

    code = "already_exists"


class MigrationRefused(InputError):
    """The catalog cannot be brought to another revision as it is. Nothing was changed."""

    code = "migration_refused"


class DowngradeRefused(InputError):
    """A downgrade of the catalog would lose data that the older revision has no place for. `losses` says what and how much."""

    code = "downgrade_refused"


class InUse(InputError):
    """Something still points at what should be deleted."""

    code = "in_use"


class TagImmutable(InputError):
    """Tags never move, and the name of a deleted tag cannot be reused."""

    code = "tag_immutable"


class SweepRefused(InputError):
    """A sweep would remove so much, or so much that is new, that the catalog is more likely to be wrong than the store."""

    code = "sweep_refused"


class PayloadTooLarge(InputError):
    """A request or a file that is larger than this server takes."""

    code = "payload_too_large"


class RangeNotSatisfiable(InputError):
    """A range of bytes that lies outside of the file."""

    code = "range_not_satisfiable"


class PreconditionFailed(InputError):
    """What should be changed is no longer what the caller said it was (`If-Match`)."""

    code = "precondition_failed"


# --- look again, then retry ----------------------------------------------------------------------------------------


class ConflictError(RegistryError):
    """Somebody else was first."""

    code = "conflict"


class BranchMoved(ConflictError):
    """The branch no longer points where the caller expected it to."""

    code = "branch_moved"


class CommitConflict(ConflictError):
    """A component that this commit writes was changed on the branch since the commit's base."""

    code = "commit_conflict"


class RetryLater(RegistryError):
    """A passing condition: a lock not won in time, a hold that ran out, a server that went away."""

    code = "retry_later"


class BodyTimeout(RetryLater):
    """A client was silent for too long in the middle of its request."""

    code = "body_timeout"


class TooManyRequests(RetryLater):
    """The server has as much to do as it may: ask again in a moment."""

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
    """A legacy dataset whose bytes were not taken into the store yet: readable, not writable."""

    code = "not_adopted"


class StorageError(RegistryError):
    """The disk or the object store refused: full, read-only, unreachable."""

    code = "storage_error"


class CorruptionError(RegistryError):
    """Stored bytes or rows contradict their digest, or are missing. Nothing was changed; run a verification."""

    code = "corruption"
