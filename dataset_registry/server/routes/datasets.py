"""Datasets, versions and their history."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from dataset_registry.dataset import Dataset
from dataset_registry.embedded.dataset import EmbeddedDataset, EmbeddedVersion
from dataset_registry.operations import datasets, files, history
from dataset_registry.operations.history import MOST_MEMOIZED
from dataset_registry.server import paging
from dataset_registry.server.auth import AccessDep, Idempotent, RegistryDep
from dataset_registry.server.paging import Cursor, Limit
from dataset_registry.version import Version
from dataset_registry.wire.base import MOST_IDS, CountResponse, Page
from dataset_registry.wire.commits import ProductionResponse
from dataset_registry.wire.datasets import (
    CapturedResponse,
    ComparisonResponse,
    ConsumerResponse,
    DatasetRequest,
    DatasetResponse,
    NestedVersionResponse,
    ReadRequest,
    SchemaResponse,
    UpdateDatasetRequest,
    VersionFileResponse,
    VersionResponse,
    WholeVersionResponse,
)

router = APIRouter(route_class=Idempotent)

DatasetId = Annotated[int, Path(ge=-MOST_IDS, le=MOST_IDS, description="The id of a dataset.")]
VersionId = Annotated[
    int, Path(ge=-MOST_IDS, le=MOST_IDS, description="The id of a version (`id`, not `version_number`).")
]
Ref = Annotated[
    str,
    Query(
        min_length=1,
        max_length=10_000,
        description="A branch, a tag, `v3`, a digest's beginning; with `~2` or `^2` behind.",
    ),
]


def dataset_of(dataset_id: DatasetId, access: AccessDep) -> Dataset:
    """The dataset of a path."""
    return EmbeddedDataset(access, datasets.by_id(access, dataset_id))


def version_of(dataset_id: DatasetId, version_id: VersionId, access: AccessDep) -> Version:
    """The version of a path."""
    found = datasets.by_id(access, dataset_id)
    return EmbeddedVersion(access, history.version_by_id(access, found, version_id))


DatasetDep = Annotated[Dataset, Depends(dataset_of)]
VersionDep = Annotated[Version, Depends(version_of)]


def _shape(version: Version) -> VersionResponse:
    return VersionResponse.of(version.record)


@router.get("/datasets", tags=["datasets"])
def list_datasets(
    registry: RegistryDep,
    prefix: Annotated[str, Query(max_length=10_000, description="Only names with this prefix.")] = "",
    name: Annotated[str | None, Query(max_length=10_000, description="Only the dataset of this name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[DatasetResponse]:
    """List the datasets that you can read, by name. An unknown `name` is a 404."""
    if name is not None:
        return Page(items=[DatasetResponse.of(registry.dataset(name).record)])
    after = paging.decode(cursor)
    found = [dataset.record for dataset in registry.datasets(prefix=prefix) if after is None or dataset.name > after]
    return paging.page(found, limit, DatasetResponse.of, lambda record: record.name)


@router.post("/datasets", status_code=201, tags=["datasets"])
def create_dataset(registry: RegistryDep, body: DatasetRequest) -> DatasetResponse:
    """Create a dataset. You become its admin."""
    return DatasetResponse.of(registry.create_dataset(body.name, description=body.description).record)


@router.get("/datasets/{dataset_id}", tags=["datasets"])
def get_dataset(dataset: DatasetDep) -> DatasetResponse:
    """A dataset."""
    return DatasetResponse.of(dataset.record)


@router.patch("/datasets/{dataset_id}", tags=["datasets"])
def update_dataset(dataset: DatasetDep, body: UpdateDatasetRequest, access: AccessDep) -> DatasetResponse:
    """Change the name, the description, or both."""
    return DatasetResponse.of(datasets.update(access, dataset.record, name=body.name, description=body.description))


@router.delete("/datasets/{dataset_id}", tags=["datasets"])
def delete_dataset(dataset: DatasetDep) -> CountResponse:
    """Delete a dataset with its versions, branches and tags. Returns the number of versions."""
    return CountResponse(count=dataset.delete())


# --- versions ------------------------------------------------------------------------------------------------------


@router.get("/datasets/{dataset_id}/versions", tags=["versions"])
def list_versions(
    dataset: DatasetDep, access: AccessDep, cursor: Cursor = None, limit: Limit = 100
) -> Page[VersionResponse]:
    """Every version, newest first, each with its parents."""
    found = history.tree(access, dataset.record, before=paging.number(cursor), limit=limit + 1)
    return paging.page(found, limit, VersionResponse.of, lambda record: record.number)


@router.get("/datasets/{dataset_id}/tree", tags=["versions"])
def tree(dataset: DatasetDep, access: AccessDep, cursor: Cursor = None, limit: Limit = 1000) -> Page[VersionResponse]:
    """Alias of the list of versions."""
    return list_versions(dataset, access, cursor, limit)


@router.get("/datasets/{dataset_id}/tree/nested", tags=["versions"])
def nested_tree(
    dataset: DatasetDep, access: AccessDep, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=200)] = 200
) -> Page[NestedVersionResponse]:
    """The tree as nested versions, limited to the newest 200 because each adds a level."""
    page = list_versions(dataset, access, cursor, limit)
    return Page(items=NestedVersionResponse.forest(page.items), next_cursor=page.next_cursor)


@router.get("/datasets/{dataset_id}/resolve", tags=["versions"])
def resolve(dataset: DatasetDep, ref: Ref = "main") -> VersionResponse:
    """Resolve a ref to a version."""
    return _shape(dataset.version(ref))


@router.get("/datasets/{dataset_id}/log", tags=["versions"])
def log(
    dataset: DatasetDep, access: AccessDep, ref: Ref = "main", cursor: Cursor = None, limit: Limit = 100
) -> Page[VersionResponse]:
    """The history of a ref, newest first."""
    found = history.log(access, dataset.record, ref, limit + 1, before=paging.number(cursor))
    return paging.page(found, limit, VersionResponse.of, lambda record: record.number)


@router.get("/datasets/{dataset_id}/compare", tags=["versions"])
def compare(dataset: DatasetDep, before: Ref, after: Ref) -> ComparisonResponse:
    """What changed from one ref to another: components, and the columns of each table."""
    return ComparisonResponse.of(dataset.diff(before, after))


@router.get("/datasets/{dataset_id}/merge-bases", tags=["versions"])
def merge_bases(dataset: DatasetDep, left: Ref, right: Ref) -> Page[VersionResponse]:
    """The best common ancestors of two refs, newest first."""
    return Page(items=[_shape(version) for version in dataset.merge_bases(left, right)])


@router.get("/datasets/{dataset_id}/versions/{version_id}", tags=["versions"])
def get_version(
    version: VersionDep, access: AccessDep, cursor: Cursor = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> WholeVersionResponse:
    """A version with its files and its schema."""
    page = paging.slice_of(version.components, cursor, limit, lambda component: component)
    counts = files.counts(access, [component.file_id for component in page.items])
    captured = version.captured(sorted({component.name for component in page.items})) if page.items else []
    return WholeVersionResponse(
        **_shape(version).model_dump(),
        files=[VersionFileResponse.of(component, counts.get(component.file_id, 0)) for component in page.items],
        next_cursor=page.next_cursor,
        schema_json=[
            {"component_name": name, "component_index": index, **schema.to_json()} for name, index, schema in captured
        ],
    )


@router.delete("/datasets/{dataset_id}/versions/{version_id}", tags=["versions"])
def delete_version(dataset: DatasetDep, version: VersionDep) -> CountResponse:
    """Delete a version that no branch, tag or child references."""
    dataset.delete_version(f"v{version.number}")
    return CountResponse(count=1)


@router.get("/datasets/{dataset_id}/versions/{version_id}/children", tags=["versions"])
def children(dataset: DatasetDep, version: VersionDep) -> Page[VersionResponse]:
    """The children of a version, oldest first."""
    return Page(items=[_shape(child) for child in dataset.children(f"v{version.number}")])


@router.get("/datasets/{dataset_id}/schema/{version_id}", tags=["versions"])
def schema(
    version: VersionDep,
    component: Annotated[list[str] | None, Query(max_length=10_000, description="Only of these.")] = None,
) -> SchemaResponse:
    """The columns and statistics captured of a version's components."""
    found = [CapturedResponse.of(*captured) for captured in version.captured(component)]
    return SchemaResponse(dataset_version_id=version.id, components=found)


@router.get("/datasets/{dataset_id}/versions/{version_id}/productions", tags=["lineage"])
def productions(version: VersionDep) -> Page[ProductionResponse]:
    """The productions of a version: the runs that produced it, with their exact inputs."""
    return Page(items=[ProductionResponse.of(production) for production in version.productions])


@router.get("/datasets/{dataset_id}/productions", tags=["lineage"])
def memoized(
    dataset: DatasetDep,
    memo_digest: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$")],
    limit: Annotated[int, Query(ge=1, le=MOST_MEMOIZED)] = 20,
) -> Page[ProductionResponse]:
    """The productions with this memo digest, newest first: what was computed from the same code and configuration."""
    return Page(items=[ProductionResponse.of(production) for production in dataset.memoized(memo_digest, limit=limit)])


@router.get("/datasets/{dataset_id}/versions/{version_id}/consumers", tags=["lineage"])
def consumers(version: VersionDep) -> Page[ConsumerResponse]:
    """The versions that were produced from this one, in datasets that you can read."""
    return Page(
        items=[ConsumerResponse(dataset_name=name, version_number=number) for name, number in version.consumers]
    )


@router.post("/datasets/{dataset_id}/versions/{version_id}/reads", status_code=201, tags=["lineage"])
def note_read(version: VersionDep, body: ReadRequest) -> CountResponse:
    """Record that a pipeline run reads a version, which protects it from expiry."""
    version.note_read(body.run_id)
    return CountResponse(count=1)
