"""What a server is told by its environment: `DATASET_REGISTRY_CATALOG`, `DATASET_REGISTRY_STORE`, …"""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the registry is, and what one client may cost."""

    model_config = SettingsConfigDict(env_prefix="DATASET_REGISTRY_", frozen=True)

    folder: str | None = Field(default=None, description="The folder of an embedded registry.")
    catalog: str | None = Field(default=None, repr=False, description="The catalog's URL, with a store.")
    store: str | None = Field(default=None, repr=False, description="The store, with a catalog.")
    compression: str | None = Field(
        None, description="What new CSV and JSON files are compressed with, where that pays."
    )

    verify_reads: bool = Field(default=False, description="Whether every stored file is hashed before it is sent.")
    direct_uploads: bool = Field(
        default=False,
        description="Whether clients may PUT large files straight into the object store (they must reach it).",
    )
    max_request_bytes: int = Field(default=1 << 20, description="The largest body of a request that is no commit.")
    max_json_bytes: int = Field(default=32 << 20, description="The largest JSON of a commit, or of a plan to apply.")
    max_form_bytes: int = Field(default=1 << 30, description="The largest commit as a form, with its files.")
    max_upload_bytes: int = Field(default=1 << 40, description="The largest upload, in one request or in several.")
    user_upload_bytes: int = Field(
        default=256 << 30, description="Bytes of uploads that a user may have under way, announced or received."
    )
    all_upload_bytes: int = Field(
        default=1 << 40, description="Bytes of uploads that may be under way in all, announced or received."
    )
    user_uploads: int = Field(default=10_000, description="Uploads that a user may have under way.")
    max_form_files: int = Field(default=2000, description="How many files one commit may bring in one form.")
    body_seconds: float = Field(
        default=60.0, description="How long a client may send nothing of its request, or take nothing of its answer."
    )
    least_bytes_per_second: int = Field(
        default=1024, description="How fast a client must send or take after that, on average."
    )
    concurrency: int = Field(default=64, description="Requests under way at once; more are told to retry (429).")
    user_concurrency: int = Field(default=24, description="Requests of one user under way at once.")
    upload_hours: float = Field(default=24.0, description="Hours until an abandoned upload is deleted.")
    seal_seconds: float = Field(default=60.0, description="How often the audit log is sealed; 0 for never.")
