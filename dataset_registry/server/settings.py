"""The settings of a server, from the environment: `DATASET_REGISTRY_CATALOG`, `DATASET_REGISTRY_STORE`, …"""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The location of the registry, and the limits per client."""

    model_config = SettingsConfigDict(env_prefix="DATASET_REGISTRY_", frozen=True)

    folder: str | None = Field(default=None, description="The folder of an embedded registry.")
    catalog: str | None = Field(default=None, repr=False, description="The catalog's URL, with a store.")
    store: str | None = Field(default=None, repr=False, description="The store, with a catalog.")
    compression: str | None = Field(None, description="Compression of new CSV and JSON files, where it pays.")

    public_url: str | None = Field(
        default=None, description="The address of the server for its clients, where a proxy changes it; for Iceberg."
    )
    dagster_url: str | None = Field(default=None, description="The address of Dagster's web server, for links to runs.")
    verify_reads: bool = Field(default=False, description="Whether every stored file is hashed before it is sent.")
    direct_uploads: bool = Field(
        default=False,
        description="Whether clients may PUT large files straight into the object store (they must reach it).",
    )
    max_request_bytes: int = Field(default=1 << 20, description="The maximum body of a request other than a commit.")
    max_json_bytes: int = Field(default=32 << 20, description="The maximum JSON of a commit, or of a plan to apply.")
    max_table_work: int = Field(
        default=4, ge=1, description="Concurrent row diffs, merges and publications; each takes up to 1 GB of memory."
    )
    max_form_bytes: int = Field(default=1 << 30, description="The maximum size of a form with files.")
    max_upload_bytes: int = Field(default=1 << 40, description="The maximum size of an upload.")
    user_upload_bytes: int = Field(
        default=256 << 30, description="Maximum bytes of a user's open uploads, announced or received."
    )
    all_upload_bytes: int = Field(
        default=1 << 40, description="Maximum bytes of all open uploads, announced or received."
    )
    user_uploads: int = Field(default=10_000, description="Maximum number of a user's open uploads.")
    max_form_files: int = Field(default=2000, description="Maximum number of files in a form.")
    body_seconds: float = Field(
        default=60.0, description="Timeout of a silent client, while sending its request or reading its response."
    )
    least_bytes_per_second: int = Field(
        default=1024, description="Minimum average rate of a client after that, in bytes a second."
    )
    concurrency: int = Field(default=64, description="Maximum number of concurrent requests; more get a 429.")
    user_concurrency: int = Field(default=24, description="Maximum number of concurrent requests of one user.")
    upload_hours: float = Field(default=24.0, description="Hours until an abandoned upload is deleted.")
    seal_seconds: float = Field(default=60.0, description="Interval of sealing the audit log; 0 for never.")
