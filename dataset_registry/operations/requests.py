"""Requests with an idempotency key: each is executed once; a repetition gets the stored response."""

from dataset_registry.access import Access
from dataset_registry.catalog import Transaction, requests
from dataset_registry.errors import ConflictError
from dataset_registry.model.commits import RequestKey


def recall(access: Access, tx: Transaction, request: RequestKey) -> tuple[int, str] | None:
    """The status and the answer of the same request, if it was answered within the last day.

    Raises `ConflictError` when the key came with another request.
    """
    found = requests.find(tx, access.user_id(tx), _stored_key(access, request))
    if found is None:
        return None
    fingerprint, status, answer = found
    if fingerprint != request.fingerprint:
        raise ConflictError(
            f"The Idempotency-Key {request.key!r} was used for another request. Use a new key for each request.",
            key=request.key,
        )
    return status, answer


def remember(access: Access, tx: Transaction, request: RequestKey, answer: str, *, status: int = 200) -> None:
    """Store a response, in the transaction of the operation, so that both are committed or neither.

    A key that another transaction stored in the meantime fails its primary key: `Catalog.write` then runs its work again, which
    finds that answer.
    """
    key = _stored_key(access, request)
    requests.remember(tx, access.user_id(tx), key, fingerprint=request.fingerprint, status=status, answer=answer)


def forget(access: Access, tx: Transaction, request: RequestKey) -> None:
    """Remove a stored answer, so that another one can take its place."""
    requests.forget(tx, access.user_id(tx), _stored_key(access, request))


def _stored_key(access: Access, request: RequestKey) -> str:
    """The key combined with its token, so that a narrower token does not get the response of a wider one."""
    return f"{access.actor.token.id if access.actor.token else 0} {request.key}"
