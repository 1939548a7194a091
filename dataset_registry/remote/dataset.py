"""Datasets, versions and drafts of a server."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from time import sleep
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from dataset_registry.dataset import Dataset, Draft, as_stored, resolutions_as_json
from dataset_registry.errors import ConflictError, InputError, NotFound, RetryLater
from dataset_registry.model.checks import CheckResult, NewCheck, Taint
from dataset_registry.model.commits import CommitOptions
from dataset_registry.model.diff import Diff, RowSummary
from dataset_registry.model.merge_plans import MergeKind, MergeOptions, MergePlan
from dataset_registry.model.names import MAIN, parse_ref, several
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.model.reading import kind_of, options_of
from dataset_registry.model.records import (
    CommitResult,
    ComponentRecord,
    DatasetRecord,
    FileRecord,
    Head,
    NewDataset,
    PointerRecord,
    Production,
    VersionRecord,
)
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.remote.client import Client, segment
from dataset_registry.remote.contents import ServedContents
from dataset_registry.store import RemoteBytes, Spool, Spooled
from dataset_registry.version import Version
from dataset_registry.wire.base import CountResponse
from dataset_registry.wire.checks import CheckRequest, CheckResponse, TaintsResponse
from dataset_registry.wire.commits import (
    CommitRequest,
    CommitResponse,
    ComponentRequest,
    ContentRequest,
    CutRequest,
    HeadResponse,
    NamedCommitRequest,
    ProductionResponse,
    ProvenanceBody,
    RemovalRequest,
)
from dataset_registry.wire.datasets import (
    ComparisonResponse,
    ConsumerResponse,
    DatasetResponse,
    PointerResponse,
    SchemaResponse,
    VersionResponse,
)
from dataset_registry.wire.files import HashesResponse, UploadResponse
from dataset_registry.wire.merges import (
    ConflictRowsRequest,
    MergePlanResponse,
    MergeRequest,
    MergeResponse,
    RowSummariesResponse,
    StrategyRequest,
)

if TYPE_CHECKING:
    import pyarrow

    from dataset_registry.content.change import RowEdit, StagedComponent
    from dataset_registry.content.stage import Staged

_log = logging.getLogger(__name__)

_IN_FORM = 1 << 20
"""Files up to this many bytes are sent with the commit."""
_FORM_BYTES = 64 << 20
_FORM_FILES = 1000
_DIRECT = 32 << 20
"""Files of at least this many bytes are uploaded directly to the object store, if the server offers it."""
_BLOCK = 1 << 20
_RESUMED = 20
"""How often an upload resumes after a broken connection."""


class RemoteVersion(Version):
    """A version of a server."""

    def __init__(self, client: Client, contents: ServedContents, record: VersionRecord) -> None:
        super().__init__(record, contents)
        self._client = client
        self._path = f"datasets/{record.dataset_id}/versions/{record.id}"

    @property
    def productions(self) -> list[Production]:
        return [shape.value() for shape in self._client.listed(f"{self._path}/productions", ProductionResponse)]

    @property
    def consumers(self) -> list[tuple[str, int]]:
        found = self._client.listed(f"{self._path}/consumers", ConsumerResponse)
        return [(shape.dataset_name, shape.version_number) for shape in found]

    @property
    def checks(self) -> list[CheckResult]:
        return [shape.value() for shape in self._client.listed(f"{self._path}/checks", CheckResponse)]

    @property
    def taints(self) -> list[Taint]:
        return [shape.value() for shape in self._client.get(f"{self._path}/taints", TaintsResponse).taints]

    def _record_check(self, check: NewCheck) -> CheckResult:
        body = CheckRequest.of(check).model_dump(mode="json")
        return self._client.post(f"{self._path}/checks", CheckResponse, body).value()

    def note_read(self, run_id: str) -> None:
        self._client.post(f"{self._path}/reads", CountResponse, {"run_id": run_id}, once=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteVersion) and (other.id, other._client) == (self.id, self._client)

    def __hash__(self) -> int:
        return hash(self.id)


class RemoteDataset(Dataset):
    """A dataset of a server."""

    def __init__(self, client: Client, contents: ServedContents, record: DatasetRecord) -> None:
        super().__init__(record)
        self._client = client
        self._contents = contents
        self._path = f"datasets/{record.id}"

    def draft(self, branch: str = MAIN, **options: Any) -> "RemoteDraft":
        return RemoteDraft(self._client, self._contents, self.record, branch, **options)

    def _version(self, shape: VersionResponse) -> RemoteVersion:
        return RemoteVersion(self._client, self._contents, shape.value())

    # --- looking ---------------------------------------------------------------------------------------------------

    def version(self, ref: str = MAIN) -> RemoteVersion:
        parse_ref(ref)
        return self._version(self._client.get(f"{self._path}/resolve", VersionResponse, ref=ref))

    def log(self, ref: str = MAIN, *, limit: int | None = None) -> list[Version]:
        if limit is not None and limit < 0:
            raise InputError(f"A limit is 0 or more, not {limit}.", limit=limit)
        if limit == 0:
            self.version(ref)  # which has to be there all the same
        found = self._client.pages(f"{self._path}/log", VersionResponse, ref=ref, limit=limit)
        return [self._version(shape) for shape in found]

    def tree(self) -> list[Version]:
        return [self._version(shape) for shape in self._client.pages(f"{self._path}/versions", VersionResponse)]

    def children(self, ref: str) -> list[Version]:
        parent = self.version(ref)
        return [self._version(shape) for shape in self._client.listed(f"{parent._path}/children", VersionResponse)]

    def memoized(self, memo_digest: str, *, limit: int = 20) -> list[Production]:
        path = f"{self._path}/productions"
        found = self._client.listed(path, ProductionResponse, memo_digest=memo_digest, limit=limit)
        return [shape.value() for shape in found]

    def merge_bases(self, left: str, right: str) -> list[Version]:
        found = self._client.listed(f"{self._path}/merge-bases", VersionResponse, left=left, right=right)
        return [self._version(shape) for shape in found]

    def diff(self, before: str, after: str) -> Diff:
        return self._client.get(f"{self._path}/compare", ComparisonResponse, before=before, after=after).diff()

    def diff_summary(self, before: str, after: str, component: str | None = None) -> dict[str, RowSummary]:
        path = f"{self._path}/compare/summary"
        found = self._client.get(path, RowSummariesResponse, before=before, after=after, component=component)
        return {label: rows.value() for label, rows in found.tables.items()}

    def diff_rows(
        self,
        before: str,
        after: str,
        component: str | None = None,
        *,
        index: int = 0,
        sheet: str | None = None,
        key: str | Sequence[str] = (),
        limit: int | None = None,
    ) -> "pyarrow.RecordBatchReader":
        columns = list(several(key)) or None
        query: dict[str, Any] = {"component": component, "index": index, "sheet": sheet, "key": columns, "limit": limit}
        path = f"{self._path}/compare/rows"
        return _stream(self._client.download("GET", path, before=before, after=after, format="arrow", **query))

    # --- merging ---------------------------------------------------------------------------------------------------

    def _plan_merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> MergePlan:
        body = MergeRequest(**_merge_fields(how, ref, branch, options))
        return self._client.post(
            f"{self._path}/merges/plan", MergePlanResponse, body, patience=None, once=False
        ).value()

    def _merge(self, how: MergeKind, ref: str, branch: str, options: MergeOptions) -> RemoteVersion:
        body = MergeRequest(**_merge_fields(how, ref, branch, options))
        return self._version(self._client.post(f"{self._path}/merges", MergeResponse, body, patience=None).version)

    def _conflicts(
        self, how: MergeKind, ref: str, branch: str, component: str, options: MergeOptions
    ) -> "pyarrow.Table":
        body = ConflictRowsRequest(component=component, **_merge_fields(how, ref, branch, options))
        path = f"{self._path}/merges/conflicts"
        return _stream(self._client.download("POST", path, body=body, format="arrow")).read_all()

    # --- branches and tags -----------------------------------------------------------------------------------------

    def create_branch(self, name: str, ref: str = MAIN) -> PointerRecord:
        body = {"pointer_name": name, "ref": ref}
        return self._client.post(f"{self._path}/branches", PointerResponse, body).value()

    def create_tag(self, name: str, ref: str = MAIN) -> PointerRecord:
        body = {"pointer_name": name, "ref": ref}
        return self._client.post(f"{self._path}/tags", PointerResponse, body).value()

    def move_branch(self, name: str, ref: str, *, expect: str | None = None) -> PointerRecord:
        body = {"ref": ref, "expect": expect}
        return self._client.patch(f"{self._path}/branches/{segment(name)}", PointerResponse, body).value()

    def delete_branch(self, name: str) -> None:
        self._client.delete(f"{self._path}/branches/{segment(name)}", CountResponse)

    def delete_tag(self, name: str) -> None:
        self._client.delete(f"{self._path}/tags/{segment(name)}", CountResponse)

    def branch(self, name: str) -> PointerRecord:
        return self._client.get(f"{self._path}/branches/{segment(name)}", PointerResponse).value()

    def branches(self) -> list[PointerRecord]:
        return [shape.value() for shape in self._client.listed(f"{self._path}/branches", PointerResponse)]

    def tags(self) -> list[PointerRecord]:
        return [shape.value() for shape in self._client.listed(f"{self._path}/tags", PointerResponse)]

    # --- the dataset itself ----------------------------------------------------------------------------------------

    def update(self, *, description: str) -> None:
        self.record = self._client.patch(self._path, DatasetResponse, {"description": description}).value()

    def rename(self, name: str) -> None:
        self.record = self._client.patch(self._path, DatasetResponse, {"name": name}).value()

    def absolve(self, ref: str, because: str) -> list[Taint]:
        path = f"{self.version(ref)._path}/absolve"
        return [shape.value() for shape in self._client.post(path, TaintsResponse, {"because": because}).taints]

    def delete_version(self, ref: str) -> None:
        self._client.delete(self.version(ref)._path, CountResponse)

    def delete(self) -> int:
        return self._client.delete(self._path, CountResponse).count


def _merge_fields(how: MergeKind, ref: str, branch: str, options: MergeOptions) -> dict[str, Any]:
    """The fields of the request for a merge."""
    return {
        "how": how,
        "ref": ref,
        "branch": branch,
        "strategies": [StrategyRequest.of(strategy) for strategy in options.strategies],
        "resolutions": resolutions_as_json(options),
        "plan": options.plan,
        "fast_forward": options.fast_forward,
        "message": options.message,
    }


def _stream(file: IO[bytes]) -> "pyarrow.RecordBatchReader":
    """An Arrow stream in a file, which is closed at its end."""
    import pyarrow

    source = pyarrow.ipc.open_stream(pyarrow.PythonFile(file, mode="r"))

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        with file:
            yield from source

    return pyarrow.RecordBatchReader.from_batches(source.schema, batches())


class RemoteDraft(Draft):
    """A draft that is sent to a server: content is spooled and hashed here, uploaded only if the server lacks it."""

    def __init__(
        self,
        client: Client,
        contents: ServedContents,
        dataset: DatasetRecord | NewDataset,
        branch: str,
        **options: Any,
    ) -> None:
        self._client = client
        self._contents = contents
        super().__init__(dataset, branch, **options)

    @property
    def version(self) -> RemoteVersion:
        return RemoteVersion(self._client, self._contents, self.result.version)

    @property
    def _scratch(self) -> Path:
        return self._contents.scratch

    def _head(self, branch: str, fallback: str | None) -> Head | None:
        dataset = self._dataset
        which = {"dataset_name": dataset.name} if isinstance(dataset, NewDataset) else {"dataset_id": dataset.id}
        found = self._client.get("head", HeadResponse, branch=branch, fallback=fallback, **which)
        if found.dataset is not None:
            self._dataset = found.dataset.value()
        if found.version_id is None or found.version_number is None:
            return None
        return Head(found.version_id, found.version_number, 0, found.digest)

    def _previous(self, name: str, index: int) -> ComponentSchema | None:
        base = self._options.base
        if base is None or isinstance(self._dataset, NewDataset):
            return None
        path = f"datasets/{self._dataset.id}/schema/{base.id}"
        found = [c.captured() for c in self._client.get(path, SchemaResponse, component=[name]).components]
        return next((schema for was, at, schema in found if (was, at) == (name, index)), None)

    def _stored(self, version: Version, component: ComponentRecord) -> "Staged":
        if not isinstance(version, RemoteVersion) or version._client is not self._client:
            raise InputError(f"{version} is a version of another registry. Add its content instead.")
        captured = next((s for _, index, s in version.captured(component.name) if index == component.index), None)
        (files,) = self._contents.data_files(version.record, [component])

        def served(file: FileRecord) -> Spooled:
            fetch = partial(self._contents.fetch, version.record, file)
            return Spooled(
                str(file.content_hash), file.size, RemoteBytes(fetch, lambda count: fetch().read_bytes()[-count:])
            )

        return as_stored(component, captured, [*map(served, files)])

    def _known(self, path: Path) -> Spooled | None:
        return None  # what the server has is asked by hash, and for that the file is read

    def _captured(self, spool: Spool, spooled: Spooled, format: str) -> ComponentSchema | None:
        return None  # the server captures it

    def _commit(self, spool: Spool, options: CommitOptions) -> CommitResult:
        try:
            return self._commit_once(options)
        except NotFound as error:  # what the server knew when it was asked may have been collected since
            if "hash" not in error.fields:
                raise
            return self._commit_once(options, everything=True)

    def _commit_once(self, options: CommitOptions, *, everything: bool = False) -> CommitResult:
        staged = [c.staged for c in self._change.put.values()]
        staged += [edit.staged for edit in self._change.edits.values() if edit.staged is not None]
        contents = {file.content_hash: file for each in staged for file in each.spooled}
        places, form = self._send(contents, everything=everything)
        try:
            body = self._request(options, places)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(str(part) for part in found["loc"])
            raise InputError(f"This commit cannot be sent: {where}: {found['msg']}.", where=where) from error
        path = "commits" if isinstance(self._dataset, NewDataset) else f"datasets/{self._dataset.id}/versions"
        if not form:
            return self._client.post(path, CommitResponse, body).result()
        with ExitStack() as opened:
            files = {part: (part, opened.enter_context(_opened(contents[h]))) for h, part in form.items()}
            data = {"commit": body.model_dump_json(by_alias=True)}
            query = {"dataset_name": self._dataset.name} if isinstance(self._dataset, NewDataset) else {}
            return self._client.post_form(path, CommitResponse, data, files, **query).result()

    def _request(self, options: CommitOptions, places: dict[str, ContentRequest]) -> CommitRequest:
        change = self._change
        removed = [
            RemovalRequest(component_name=name, component_index=index)
            for name, indexes in change.removed.items()
            for index in ([None] if indexes is None else sorted(indexes))
        ]
        fields: dict[str, Any] = {
            "branch": options.branch,
            "message": options.message,
            "components": [
                *(_component(key, component, places) for key, component in change.put.items()),
                *(_row_edit(key, edit, places) for key, edit in change.edits.items()),
            ],
            "replaced": sorted(change.replaced),
            "removed": removed,
            "cleared": [RemovalRequest(component_name=name, component_index=index) for name, index in change.cleared],
            "partitions": sorted(change.partitions),
            "everything": change.everything,
            "base_version_id": options.base.id if options.base else None,
            "overwrite": options.overwrite,
            "fallback": options.fallback,
            "parents": list(options.parents),
            "restored_version_ids": list(options.sources),
            "provenance": ProvenanceBody.of(options.provenance) if options.provenance else None,
        }
        if isinstance(self._dataset, NewDataset):
            return NamedCommitRequest(dataset_name=self._dataset.name, description=self._dataset.description, **fields)
        return CommitRequest(**fields)

    def _send(
        self, contents: dict[str, Spooled], *, everything: bool
    ) -> tuple[dict[str, ContentRequest], dict[str, str]]:
        """Upload large files that the server lacks, and prepare small ones for the form of the commit.

        Returns the source of each content, and the parts of the form by hash.
        """
        hashes = sorted(contents)
        known: set[str] = set()
        for start in range(0, 0 if everything else len(hashes), 10_000):
            batch = {"hashes": hashes[start : start + 10_000]}
            known.update(self._client.post("contents/known", HashesResponse, batch, once=False).known)
        places = {h: ContentRequest(content_hash=h) for h in known}
        form: dict[str, str] = {}
        size = 0
        for content_hash in hashes:
            content = contents[content_hash]
            if content_hash in known:
                continue
            if content.size <= _IN_FORM and size + content.size <= _FORM_BYTES and len(form) < _FORM_FILES:
                form[content_hash] = f"content-{len(form)}"
                size += content.size
                places[content_hash] = ContentRequest(content_hash=content_hash, part=form[content_hash])
            else:
                upload_id = self._upload(content)
                places[content_hash] = ContentRequest(content_hash=content_hash, upload_id=upload_id)
        return places, form

    def _upload(self, content: Spooled) -> str:
        """Upload a file, resuming after a broken connection. Returns the id of the upload."""
        body = {"file_size": content.size, "content_hash": content.content_hash}
        upload = self._client.post("uploads", UploadResponse, {**body, "direct": content.size >= _DIRECT})
        if upload.upload_url is not None:
            if self._client.put(upload.upload_url, _blocks(content, 0), content.size):
                return upload.upload_id
            upload = self._client.post("uploads", UploadResponse, body)  # the store is out of our reach
        path = f"uploads/{upload.upload_id}"
        for attempt in range(_RESUMED):
            if upload.offset == content.size:
                break
            try:
                upload = self._client.send(path, UploadResponse, upload.offset, _blocks(content, upload.offset))
            except (RetryLater, ConflictError):  # the connection broke, or the server has not noticed yet that it did
                if attempt == _RESUMED - 1:
                    raise
                _log.info("The upload %s broke off at %d bytes; it resumes", upload.upload_id, upload.offset)
                sleep(min(0.1 * 2**attempt, 5.0))
                upload = self._client.get(path, UploadResponse)
        return upload.upload_id


def _row_edit(key: tuple[str, int], edit: "RowEdit", places: dict[str, ContentRequest]) -> ComponentRequest:
    fields: dict[str, Any] = {"component_name": key[0], "component_index": key[1]}
    if edit.staged is not None:
        fields = _staged(key, edit.staged, places)
    return ComponentRequest(**{**fields, "rows": edit.action, "where": edit.where, "key": list(edit.key)})


def _component(
    key: tuple[str, int], component: "StagedComponent", places: dict[str, ContentRequest]
) -> ComponentRequest:
    return ComponentRequest(
        **_staged(key, component.staged, places),
        component_type=component.type,  # type: ignore[arg-type]  # checked when it was staged
        metadata=dict(component.metadata),
        renames=dict(component.renames),
    )


def _staged(key: tuple[str, int], staged: "Staged", places: dict[str, ContentRequest]) -> dict[str, Any]:
    """The fields of a component for its content."""
    table = staged.schema.tables[0] if staged.parts is not None and staged.schema else None
    parts = [places[part.content_hash] for part in staged.parts] if staged.parts is not None else None
    return {
        "component_name": key[0],
        "component_index": key[1],
        "content": places[staged.content_hash] if parts is None else None,
        "parts": parts,
        "user_types": table.user_types if table else None,
        "library": table.library if table else None,
        "key": list(table.key) if table else [],
        "cut": _cut_of(table.cut) if table and table.cut else None,
        "format": None if parts is not None else kind_of(staged.format),
        "read": None if parts is not None else options_of(staged.format).to_json(),
    }


def _opened(content: Spooled) -> BinaryIO:
    source = content.source
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _blocks(content: Spooled, start: int) -> Iterator[bytes]:
    with _opened(content) as stream:
        stream.seek(start)
        while block := stream.read(_BLOCK):
            yield block


def _cut_of(cut: ChunkingRule) -> CutRequest:
    return CutRequest(columns=list(cut.columns), rows=cut.rows, form=cut.form)
