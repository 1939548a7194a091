"""What a server is told by its environment: `DATASET_REGISTRY_CATALOG`, `DATASET_REGISTRY_STORE`, …"""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the registry is, and what one client may cost."""

    model_config = SettingsConfigDict(env_prefix="DATASET_REGISTRY_", frozen=True)

    folder: str | None = Field(default=None, description="The folder of an embedded registry.")
    catalog: str | None = Field(default=None, description="The catalog's URL, with a store.")
    store: str | None = Field(default=None, description="The store, with a catalog.")
    compression: str | None = Field(
        None, description="What new CSV and JSON files are compressed with, where that pays."
    )

    direct_uploads: bool = Field(
        default=False,
        description="Whether clients may PUT large files straight into the object store (they must reach it).",
    )
    max_json_bytes: int = Field(default=32 << 20, description="The largest JSON body.")
    max_upload_bytes: int = Field(default=1 << 40, description="The largest upload, in one request or in several.")
    max_form_files: int = Field(default=2000, description="How many files one commit may bring in one form.")
    body_seconds: float = Field(
        default=60.0, description="How long a client may be silent in the middle of its request."
    )
    concurrency: int = Field(default=64, description="Requests under way at once; more are told to come again (429).")
    upload_hours: float = Field(default=24.0, description="How long an upload that nobody goes on with is kept.")
    seal_seconds: float = Field(default=60.0, description="How often the audit log is sealed; 0 for never.")
