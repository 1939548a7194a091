"""Files and uploads."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from dataset_registry.model.records import FileForm, FileRecord
from dataset_registry.wire.base import Hash, Mapped, RequestModel, ResponseModel


class FileResponse(Mapped[FileRecord]):
    """A stored file. `form` is how it is stored, such as `whole` or `inline`; `parts` is a table in several Parquet files.
    `reference_count` counts the versions with it that the caller may read."""

    attributes: ClassVar = {"file_size": "size", "file_type": "format"}

    id: int
    content_hash: str | None
    file_size: int
    form: FileForm
    file_type: str | None
    compression_type: str | None
    reference_count: int | None
    created_at: datetime
    stored_size: int | None = None
    damage: str | None = None

    def value(self) -> FileRecord:
        """The record, without what only the server needs: the key of the object."""
        return FileRecord(
            id=self.id,
            content_hash=self.content_hash,
            size=self.file_size,
            form=self.form,
            object_key=None,
            format=self.file_type,
            compression_type=self.compression_type,
            created_at=self.created_at,
            stored_size=self.file_size if self.stored_size is None else self.stored_size,
            damage=self.damage,
            reference_count=self.reference_count,
        )


class DataFilesResponse(ResponseModel):
    """The files to read for a file: itself, or the parts of a table in order."""

    file_id: int
    data_files: list[FileResponse]


class UploadRequest(RequestModel):
    """An upload to begin. With `direct`, the content is uploaded directly to the object store, if there is one."""

    file_size: int | None = Field(default=None, ge=0, le=2**46)
    content_hash: Hash | None = None
    direct: bool = False


class UploadResponse(ResponseModel):
    """An open upload: `offset` bytes were received. With an `upload_url`, upload the content there with one PUT."""

    upload_id: str
    offset: int
    file_size: int | None
    content_hash: str | None
    expires_at: datetime
    upload_url: str | None = None


class HashesRequest(RequestModel):
    hashes: list[Hash] = Field(max_length=10_000)


class HashesResponse(ResponseModel):
    known: list[str]
