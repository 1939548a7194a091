"""A read-only REST catalog of Apache Iceberg: datasets are tables, versions are snapshots, branches and tags are refs.

A dataset `raw/flights` is the table `flights` in the namespace `raw`; one without a slash is in `default`. `flights@dev` is the
table as of a ref. https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from dataset_registry.access import Access
from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import InputError, InvalidName, NotFound
from dataset_registry.model.extras import require
from dataset_registry.model.names import MAIN
from dataset_registry.operations import datasets
from dataset_registry.server.auth import AccessDep
from dataset_registry.server.protocols import ICEBERG

router = APIRouter(prefix=ICEBERG + "v1", include_in_schema=False)

DEFAULT = "default"
"""The namespace of datasets whose names have no slash."""
_SEPARATOR = "\x1f"
"""Between the levels of a namespace in a path."""
_ENDPOINTS = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
]


@router.get("/config")
def config() -> dict[str, Any]:
    """What the catalog offers: reading."""
    return {"defaults": {}, "overrides": {}, "endpoints": _ENDPOINTS}


@router.get("/namespaces")
def namespaces(
    access: AccessDep, parent: Annotated[str | None, Query(max_length=10_000)] = None
) -> dict[str, list[list[str]]]:
    """The namespaces directly under another one."""
    above = _levels(parent) if parent else []
    places = _places_in(access, above) if above else _places(access, [])
    found = {tuple(place[: len(above) + 1]): None for place in places if len(place) > len(above) + 1}
    return {"namespaces": [list(levels) for levels in found]}


@router.api_route("/namespaces/{namespace}", methods=["GET", "HEAD"])
def namespace(namespace: str, access: AccessDep) -> dict[str, Any]:
    """A namespace, if there is a dataset in it that the caller may read."""
    levels = _levels(namespace)
    _places_in(access, levels)
    return {"namespace": levels, "properties": {}}


@router.get("/namespaces/{namespace}/tables")
def tables(namespace: str, access: AccessDep) -> dict[str, Any]:
    """The datasets in a namespace."""
    levels = _levels(namespace)
    found = [place for place in _places_in(access, levels) if place[:-1] == levels]
    return {"identifiers": [{"namespace": levels, "name": place[-1]} for place in found]}


@router.get("/namespaces/{namespace}/views")
def views(namespace: str) -> dict[str, Any]:
    """No views: datasets are tables."""
    return {"identifiers": []}


@router.get("/namespaces/{namespace}/tables/{table}")
def load_table(
    namespace: str,
    table: str,
    request: Request,
    response: Response,
    access: AccessDep,
    snapshots: Annotated[str, Query(max_length=10)] = "all",
) -> dict[str, Any]:
    """The metadata of a table, and how to read its files: from this server over S3, with the caller's token."""
    require("pyiceberg", "iceberg", "the Iceberg catalog")
    from dataset_registry.table_formats.iceberg_tables import IcebergTable

    dataset, component, ref = _find(access, _levels(namespace), table)
    found = IcebergTable(dataset, component, ref)
    response.headers["Cache-Control"] = "no-store"  # it has the token
    address = request.app.state.settings.public_url or str(request.base_url)
    secret = request.headers["authorization"].partition(" ")[2].strip()
    return {
        "metadata-location": found.metadata_location,
        "metadata": found.metadata(refs_only=snapshots == "refs"),
        "config": {
            "s3.endpoint": address.rstrip("/"),
            "s3.path-style-access": "true",
            "s3.region": "us-east-1",
            "s3.access-key-id": "registry",
            "s3.secret-access-key": "registry",  # the session token says who it is
            "s3.session-token": secret,
        },
    }


@router.head("/namespaces/{namespace}/tables/{table}")
def table_exists(namespace: str, table: str, access: AccessDep) -> Response:
    """Whether the caller may read this table."""
    _find(access, _levels(namespace), table)
    return Response(None, 204)


@router.post("/namespaces/{namespace}/tables/{table}/metrics", status_code=204)
def metrics(namespace: str, table: str) -> None:
    """Reports of scans, which some clients send: ignored."""


def _levels(namespace: str) -> list[str]:
    return namespace.split(_SEPARATOR)


def _places(access: Access, above: list[str]) -> list[list[str]]:
    """The namespace and the name of each dataset in a namespace, or below it, that the caller may read."""
    prefix = "" if above in ([], [DEFAULT]) else "/".join(above) + "/"
    found = [[*_home(record.name)] for record in datasets.list_all(access, prefix)]
    return [place for place in found if place[: len(above)] == above]


def _home(name: str) -> Sequence[str]:
    return name.split("/") if "/" in name else (DEFAULT, name)


def _places_in(access: Access, levels: list[str]) -> list[list[str]]:
    """As `_places`. Raises `NotFound` for a namespace without datasets that the caller may read."""
    found = _places(access, levels)
    if not found:
        raise NotFound(f"No namespace {'.'.join(levels)!r}: no dataset that you can read is in it.")
    return found


def _find(access: Access, levels: list[str], table: str) -> tuple[EmbeddedDataset, str | None, str]:
    """The dataset of a table, the component if it is the table of one, and the ref. Raises `NotFound`, `InputError`."""
    name, at, ref = table.partition("@")
    path = "/".join([*levels, name])
    candidates = [path, name] if levels == [DEFAULT] else [path]
    found = []
    for candidate in candidates:
        try:
            found.append(EmbeddedDataset(access, datasets.get(access, candidate)))
        except (NotFound, InvalidName):
            continue
    if len(found) > 1:
        raise InputError(
            f"The table {table!r} in {DEFAULT!r} can be the dataset {path!r} or {name!r}. Read one of them in another way, or "
            "rename one."
        )
    if found:
        return found[0], None, ref if at else MAIN
    try:  # a component of a dataset with several tables
        dataset = EmbeddedDataset(access, datasets.get(access, "/".join(levels)))
        dataset_ref = ref if at else MAIN
        if dataset.version(dataset_ref).components_named([name]):
            return dataset, name, dataset_ref
    except (NotFound, InvalidName):
        pass
    raise NotFound(f"No table {table!r} in the namespace {'.'.join(levels)!r}.")
