"""The registry as a Dagster resource: where it is, who writes, and which branch a run is on."""

import os
from collections.abc import Mapping
from functools import cache

import dagster as dg
from pydantic import Field

from dataset_registry.errors import InputError
from dataset_registry.registry import Registry

BRANCH_TAG = "dataset_registry/branch"
"""The run tag that puts a run on a branch, before anything else does."""

_TAGS = (BRANCH_TAG, "dataset_registry/tag")
"""Run tags of ours."""

BRANCH_VARIABLE = "DATASET_REGISTRY_BRANCH"
"""The environment variable that names the branch where neither a run tag nor the resource does."""


class DatasetRegistryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A registry, and the branch that runs write to and read from.

    The branch is the run tag `dataset_registry/branch`, else this resource's `branch`, else the environment's
    `DATASET_REGISTRY_BRANCH`, else `fallback_branch` (`main`). A dataset that does not have the branch is read from the
    fallback branch, and its first write on the branch starts there.
    """

    path: str | None = Field(
        default=None,
        description="The folder of an embedded registry (SQLite and files), made on first use; or a server: https://…",
    )
    catalog: str | None = Field(default=None, description="The URL of the catalog, such as postgresql+psycopg://…")
    store: str | None = Field(
        default=None, description="The store, with `catalog`: a folder, or s3://bucket/prefix, gs://…, az://…"
    )
    compression: str | None = Field(
        default=None, description="What new CSV and JSON files are compressed with, where that pays."
    )
    verify_reads: bool = Field(
        default=False,
        description="Hash every stored file before anything is read from it, instead of trusting the store.",
    )
    actor: str | None = Field(
        default=None,
        description="The user, say a service, that runs act as, with its permissions; the registry's owner when not given.",
    )
    token: str | None = Field(
        default=None,
        description='The API token for a server: `dg.EnvVar("DATASET_REGISTRY_TOKEN")`, never the text itself.',
    )
    branch: str | None = Field(default=None, description="The branch to write to and to read from.")
    fallback_branch: str = Field(default="main", description="What is read where a dataset does not have the branch.")

    @property
    def registry(self) -> Registry:
        """The registry, opened once in a process. Raises `CatalogOutdated`, `InputError`."""
        return _open(self.path, self.catalog, self.store, self.actor, self.token, self.compression, self.verify_reads)

    def branch_of(self, run_tags: Mapping[str, str] | None = None) -> str:
        """The branch of a run with these tags. Raises `InputError` for a tag that looks like ours and is none."""
        tags = run_tags or {}
        for tag in tags:
            is_ours = tag.lower().replace("_", "-").startswith(("dataset-registry/", "registry/"))
            if tag not in _TAGS and is_ours:
                raise InputError(
                    f"The run has the tag {tag!r}, which is not known. Did you mean {BRANCH_TAG!r}?", tag=tag
                )
        return tags.get(BRANCH_TAG) or self.branch or os.environ.get(BRANCH_VARIABLE) or self.fallback_branch


@cache
def _open(
    path: str | None,
    catalog: str | None,
    store: str | None,
    actor: str | None,
    token: str | None,
    compression: str | None,
    verify_reads: bool,
) -> Registry:
    return Registry.open(
        path,
        catalog=catalog,
        store=store,
        actor=actor,
        token=token,
        compression=compression,
        verify_reads=verify_reads,
        door="dagster",
    )
