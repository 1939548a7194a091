"""The same errors in every way."""

from collections.abc import Callable

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    AlreadyExists,
    InputError,
    InUse,
    InvalidName,
    InvalidRef,
    NotFound,
    RegistryError,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    numbers,
    read,
)

_REFUSALS: dict[str, tuple[Callable[[Registry, Dataset], object], type[RegistryError], str]] = {
    "no dataset": (lambda r, d: r.dataset("nobody/has/this"), NotFound, "not_found"),
    "no dataset id": (lambda r, d: r.dataset(99_999_999), NotFound, "not_found"),
    "taken": (lambda r, d: r.create_dataset(d.name), AlreadyExists, "already_exists"),
    "no ref": (lambda r, d: d.version("nowhere"), NotFound, "not_found"),
    "no number": (lambda r, d: d.version("v99"), NotFound, "not_found"),
    "too far back": (lambda r, d: d.version("main~9"), NotFound, "not_found"),
    "no second parent": (lambda r, d: d.version("main^2"), NotFound, "not_found"),
    "bad ref": (lambda r, d: d.version("a b"), InvalidRef, "invalid_ref"),
    "bad steps": (lambda r, d: d.version("main~x"), InvalidRef, "invalid_ref"),
    "bad ref in a log": (lambda r, d: d.log("~1"), InvalidRef, "invalid_ref"),
    "no ref in a log": (lambda r, d: d.log("nowhere"), NotFound, "not_found"),
    "no ref of a child": (lambda r, d: d.children("nowhere"), NotFound, "not_found"),
    "no ref of a base": (lambda r, d: d.merge_base("main", "nowhere"), NotFound, "not_found"),
    "no ref of a difference": (lambda r, d: d.diff("main", "nowhere"), NotFound, "not_found"),
    "no expectation": (lambda r, d: d.move_branch("main", "v1", expect="nowhere"), NotFound, "not_found"),
    "bad address": (lambda r, d: r.version("a b@main"), InvalidName, "invalid_name"),
    "bad prefix": (lambda r, d: r.datasets(prefix="a b"), InvalidName, "invalid_name"),
    "no component": (lambda r, d: read(d.version(), "other"), NotFound, "not_found"),
    "no index": (lambda r, d: read(d.version(), "data", 3), NotFound, "not_found"),
    "no table": (lambda r, d: d.version().to_arrow(), InputError, "invalid_input"),
    "no table of a name": (lambda r, d: d.version().to_arrow("other"), NotFound, "not_found"),
    "no lazy table": (lambda r, d: d.version().lazy(), InputError, "invalid_input"),
    "no version to delete": (lambda r, d: d.delete_version("v99"), NotFound, "not_found"),
    "head": (lambda r, d: d.delete_version("main"), InUse, "in_use"),
    "no user": (lambda r, d: r.update_user("nobody", disabled=True), NotFound, "not_found"),
    "bad role": (lambda r, d: r.create_user("x", role="king"), InputError, "invalid_input"),
    "bad user": (lambda r, d: r.create_user("a b"), InvalidName, "invalid_name"),
    "no grantee": (lambda r, d: r.grant("nobody", "read", d.name), NotFound, "not_found"),
    "bad permission": (lambda r, d: r.grant("admin", "own", d.name), InputError, "invalid_input"),
    "no resource": (lambda r, d: r.grant("admin", "read", "no/such/dataset"), NotFound, "not_found"),
    "two resources": (lambda r, d: r.grant("admin", "read", d.name, file="0" * 64), InputError, "invalid_input"),
    "bad share": (lambda r, d: r.verify(deep=(6, 5)), InputError, "invalid_input"),
    "no parent": (lambda r, d: d.commit({"x": b""}, parents=["main", "nowhere"]), NotFound, "not_found"),
    "bad branch": (lambda r, d: d.commit({"x": b""}, branch="a b"), InvalidName, "invalid_name"),
    "bad fallback": (lambda r, d: d.commit({"x": b""}, branch="b", fallback="a b"), InvalidName, "invalid_name"),
    "two overlays": (lambda r, d: _two_overlays(d), InputError, "invalid_input"),
}


def _two_overlays(dataset: Dataset) -> None:
    with dataset.draft() as draft:
        draft.add("a", b"1", type="overlay")
        draft.add("b", b"2", type="overlay")


def test_what_is_refused_is_refused_alike_with_what_to_do_next(flights: Dataset, way: Way) -> None:
    flights.commit({"data": b"1"})
    theirs = way.owner.dataset(flights.name)
    for what, (call, kind, code) in _REFUSALS.items():
        error = error_of(lambda call=call: call(way.registry, flights))
        assert (type(error), error.code) == (kind, code), f"{what}: {error!r}"
        same = error_of(lambda call=call: call(way.owner, theirs))
        if "See /docs" not in str(error):
            assert (str(error), error.fields) == (str(same), same.fields), what
    assert numbers(flights.tree()) == [1]
