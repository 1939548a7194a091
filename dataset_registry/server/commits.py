"""Commits over REST: contents are collected from uploads, forms and stored files, then committed as usual."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from starlette.datastructures import UploadFile

from dataset_registry.access import Access
from dataset_registry.content import stored
from dataset_registry.content.capture import Captures, captured, captures_of, stage_parts
from dataset_registry.content.change import Change, RowEdit, staged_component
from dataset_registry.content.stage import Staged, stage_file, with_ids
from dataset_registry.errors import InputError, RegistryError
from dataset_registry.model.commits import CommitOptions, RequestKey
from dataset_registry.model.manifest import ComponentKey
from dataset_registry.model.names import component_name, pointer_name
from dataset_registry.model.partitions import partition_key
from dataset_registry.model.parts import ChunkingRule
from dataset_registry.model.records import CommitResult, DatasetRecord, Head, NewDataset
from dataset_registry.model.schema import ComponentSchema
from dataset_registry.operations import commit as commits
from dataset_registry.operations import commit_base
from dataset_registry.server.uploads import Uploads, UploadSession
from dataset_registry.store import Spool, Spooled
from dataset_registry.wire.commits import CommitRequest, ComponentRequest, ContentRequest


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of the contents of a commit."""

    access: Access
    uploads: Uploads
    form: Mapping[str, UploadFile]


def commit(
    sources: Sources, dataset: DatasetRecord | NewDataset, request: CommitRequest, key: RequestKey | None = None
) -> CommitResult:
    """Create a version from a request. If it succeeds, its uploads are deleted.

    With a `key` the request is executed once. Its stored result is looked up before its contents are collected, since
    the first execution may have deleted its uploads.
    """
    if key is None:
        return _commit(sources, dataset, request, None)
    keys = {(component_name(c.component_name), c.component_index) for c in request.components}
    if (made := commits.answered(sources.access, key, keys)) is not None:
        return made
    try:
        return _commit(sources, dataset, request, key)
    except RegistryError:
        if (made := commits.answered(sources.access, key, keys)) is None:
            raise
        return made  # the same request, sent while the first one was at work: an upload may have ended in the meantime


def described(sources: Sources, request: CommitRequest) -> Any:
    """The request as JSON that is equal for each repetition, unlike its multipart form.

    Contents in the request are described by their hash, uploads by their id: the bytes of an upload id do not change.
    """
    parts = {name: _hash(sources.form[name]) for name in sorted(_parts(request) & sources.form.keys())}
    return [request.model_dump(mode="json"), parts]


def _parts(request: CommitRequest) -> set[str]:
    contents = (content for c in request.components for content in (*(c.parts or ()), c.content) if content)
    return {content.part for content in contents if content.part is not None}


def _hash(part: UploadFile) -> str:
    part.file.seek(0)
    found = hashlib.sha256()
    while block := part.file.read(1 << 20):
        found.update(block)
    return found.hexdigest()


def _commit(
    sources: Sources, dataset: DatasetRecord | NewDataset, request: CommitRequest, key: RequestKey | None
) -> CommitResult:
    access = sources.access
    used: dict[str, UploadSession] = {}
    branch, parent = pointer_name(request.branch), None
    if request.parent_version_id is not None:
        given = branch if "branch" in request.model_fields_set else None
        branch, parent = commit_base.parent_of(access, dataset, request.parent_version_id, given)
    fallback = pointer_name(request.fallback) if request.fallback is not None else None
    # Checks the permission before anything is read.
    base = commit_base.head(access, dataset, branch, fallback, parent)
    if "base_version_id" in request.model_fields_set and not request.overwrite:
        base = commit_base.base_of(access, dataset, request.base_version_id)
    options = CommitOptions(
        branch=branch,
        message=request.message,
        base=base,
        overwrite=request.overwrite,
        fallback=fallback,
        parent=parent,
        parents=request.parents,
        sources=commit_base.restored(access, dataset, request.restored_version_ids),
        provenance=request.provenance.value() if request.provenance else None,
        request=key,
    )
    known = _Stored(access, dataset, base, request)
    with Spool(access.store.scratch) as spool:
        change = _change(request)
        for component in request.components:
            name = component_name(component.component_name), component.component_index
            if component.where is not None and (component.rows != "delete" or component.content or component.parts):
                raise InputError('where is a condition for rows to delete. Send it alone, with "rows": "delete".')
            staged = _stage(sources, spool, component, used, known) if component.where is None else None
            if component.rows != "set":
                change.edits[name] = RowEdit(component.rows, staged, component.where, tuple(component.key))
            elif staged is not None:
                change.put[name] = staged_component(staged, component.component_type, component.metadata)
        result = commits.commit(access, spool, dataset, change, options)
    for upload in used.values():
        sources.uploads.end(upload)
    return result


class _Stored:
    """The stored contents of a commit, looked up for all of its components at once."""

    def __init__(
        self, access: Access, dataset: DatasetRecord | NewDataset, base: Head | None, request: CommitRequest
    ) -> None:
        self._access, self._dataset, self._base = access, dataset, base
        self._names = sorted({component_name(c.component_name) for c in request.components})
        contents = [content for c in request.components for content in (*(c.parts or ()), c.content) if content]
        self._hashes = {c.content_hash for c in contents if c.content_hash is not None}
        self._alone = {c.content_hash for c in contents if c.part is None and c.upload_id is None} & self._hashes

    @cached_property
    def spooled(self) -> Mapping[str, Spooled]:
        """The contents that the request references by hash only. Raises `NotFound`."""
        return stored.spooled_many(self._access, sorted(self._alone))

    @cached_property
    def captures(self) -> Captures:
        """The captured schemas of contents whose hash is in the request."""
        return captures_of(self._access, sorted(self._hashes))

    @cached_property
    def before(self) -> Mapping[ComponentKey, ComponentSchema]:
        """The captured schemas of the components in the previous version."""
        return commit_base.schemas_before(self._access, self._dataset, self._base, self._names)

    def look(self, spool: Spool, spooled: Spooled, format: str) -> ComponentSchema | None:
        """The schema of a file."""
        known = self.captures if spooled.content_hash in self._hashes else None
        return captured(self._access, spool, spooled, format, known)


def _change(request: CommitRequest) -> Change:
    removed: dict[str, set[int] | None] = {}
    for gone in request.removed:
        name = component_name(gone.component_name)
        indexes = removed.setdefault(name, set())
        if gone.component_index is None:
            removed[name] = None
        elif indexes is not None:
            indexes.add(gone.component_index)
    return Change(
        replaced={component_name(name) for name in request.replaced},
        removed=removed,
        partitions={partition_key(key) for key in request.partitions},
        everything=request.everything,
        cleared={(component_name(gone.component_name), gone.component_index) for gone in request.cleared},
    )


def _stage(
    sources: Sources,
    spool: Spool,
    component: ComponentRequest,
    used: dict[str, UploadSession],
    known: _Stored,
) -> Staged:
    if (component.content is None) == (component.parts is None):
        raise InputError(
            f"The component {component.component_name!r} needs either a content or the parts of a table.",
            component=component.component_name,
        )
    if component.parts is not None:
        parts = [_spooled(sources, spool, part, used, known)[0] for part in component.parts]
        sent = component.cut
        cut = ChunkingRule(tuple(sent.columns), sent.rows, form=sent.form) if sent else None
        staged = stage_parts(
            sources.access, spool, parts, component.user_types, component.key, cut, library=component.library
        )
        if component.rows != "set":
            return staged
        before = known.before.get((component_name(component.component_name), component.component_index))
        return with_ids(staged, before.tables[0] if before and before.tables else None, component.renames)
    assert component.content is not None, "one of the two is given"
    spooled, name = _spooled(sources, spool, component.content, used, known)
    key = component_name(component.component_name), component.component_index
    return stage_file(
        known.look,
        spool,
        spooled,
        component.file_name or name,
        component.format,
        _read(component),
        lambda: known.before.get(key),
    )


def _read(component: ComponentRequest) -> dict[str, Any] | None:
    return component.read if component.encoding is None else {**(component.read or {}), "encoding": component.encoding}


def _spooled(
    sources: Sources, spool: Spool, content: ContentRequest, used: dict[str, UploadSession], known: _Stored
) -> tuple[Spooled, str | None]:
    """The spooled content and its file name. Raises `InputError`, `NotFound`."""
    name = None
    if content.part is not None:
        part = sources.form.get(content.part)
        if part is None:
            raise InputError(f"This request has no part {content.part!r}: add it to the form.", part=content.part)
        part.file.seek(0)
        spooled, name = spool.copy(part.file), part.filename
    elif content.upload_id is not None:
        upload = sources.uploads.get(sources.access.actor.name, content.upload_id)
        if upload.key is None:
            spooled = sources.uploads.spooled(upload, spool)
        else:  # a copy of our own: the sender could still change what is under the key
            with sources.access.store.open(upload.key) as stream:
                spooled = spool.copy(stream)
        used[upload.id] = upload
        if upload.content_hash not in (None, spooled.content_hash):
            raise _differs(str(upload.content_hash), spooled)
    elif content.content_hash is not None:
        return known.spooled[content.content_hash], None
    else:
        raise InputError(
            "A content needs one of: an upload_id, a part, or the content_hash of a file that you may read."
        )
    if content.content_hash not in (None, spooled.content_hash):
        raise _differs(str(content.content_hash), spooled)
    return spooled, name


def _differs(said: str, spooled: Spooled) -> InputError:
    return InputError(
        f"Content hash mismatch: received {spooled.content_hash[:12]}, announced {said[:12]}. Send it again.",
        hash=spooled.content_hash,
    )
