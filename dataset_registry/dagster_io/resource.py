"""The registry as a Dagster resource: its location, its user, and the branch of a run."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field, field_validator, model_validator

from dataset_registry.connection import Connection
from dataset_registry.dagster_io import branches
from dataset_registry.dagster_io.handlers import Loader, understood
from dataset_registry.dagster_io.steps import (
    BodyRead,
    note_body_read,
    note_loaded,
    note_read,
    provenance_of,
    step_of,
)
from dataset_registry.dataset import Dataset
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.addresses import has_secrets, redacted
from dataset_registry.model.names import suggestion
from dataset_registry.model.records import InputVersion
from dataset_registry.registry import Registry
from dataset_registry.tabular.formats import is_table
from dataset_registry.version import Version

_log = logging.getLogger(__name__)

BRANCH_TAG = "registry/branch"
"""The run tag with the branch of a run. It takes precedence over all other settings."""

RECOMPUTE_TAG = "registry/recompute"
"""The run tag with which memoized assets are computed again, whatever its value."""

TAG_TAG = "registry/tag"
"""The run tag with the tag that a scheduled run creates."""

_FORMER_TAGS = {"dataset_registry/branch": BRANCH_TAG, "dataset_registry/tag": TAG_TAG}
"""Deprecated names of these run tags, still read."""

BRANCH_VARIABLE = "DATASET_REGISTRY_BRANCH"
"""The environment variable that names the branch where neither a run tag nor the resource does."""


class DatasetRegistryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A registry, and the branch that runs write to and read from.

    The branch is the run tag `registry/branch`, else this resource's `branch`, else the environment's
    `DATASET_REGISTRY_BRANCH`, else `fallback_branch` (`main`). It may be a template: `run/{run_id}`, `pr-{env:PR_NUMBER}`,
    `{git_branch}`.

    The branch without the run tag is the *tracked* branch: the one that the assets of the Dagster instance stand for. With
    `{run_id}` in it, that is `fallback_branch`. A dataset that does not have the branch of a run is read from the tracked
    branch, else from the fallback branch, and its first write on the branch starts there.

    Relative paths are resolved against `DAGSTER_HOME`, else against the working directory. Pass passwords and tokens as
    `dg.EnvVar`: the UI shows the configuration of resources, so secrets that are configured as text are moved into an
    environment variable of the process.
    """

    path: str | None = Field(
        default=None,
        description="The folder of an embedded registry (SQLite and files), created on first use; or a server: https://…",
    )
    catalog: str | None = Field(default=None, description="The URL of the catalog, such as postgresql+psycopg://…")
    store: str | None = Field(
        default=None, description="The store, with `catalog`: a folder, or s3://bucket/prefix, gs://…, az://…"
    )
    compression: str | None = Field(default=None, description="Compression of new CSV and JSON files, where it pays.")
    verify_reads: bool = Field(
        default=False,
        description="Hash every stored file before anything is read from it, instead of trusting the store.",
    )
    actor: str | None = Field(
        default=None,
        description="The user that runs act as, with its permissions. Default: the registry's owner.",
    )
    token: str | None = Field(
        default=None,
        description='The API token for a server: `dg.EnvVar("DATASET_REGISTRY_TOKEN")`, never the text itself.',
    )
    branch: str | None = Field(
        default=None,
        description="The branch to write to and to read from, such as 'pr-{env:PR_NUMBER}' or 'run/{run_id}'.",
    )
    pages_url: str | None = Field(
        default=None,
        description="The address of the server with the pages of this registry, for links. Default: `path`, if it is a server.",
    )
    fallback_branch: str = Field(default="main", description="The branch to read if a dataset lacks the branch.")

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, values: Any) -> Any:
        return known_settings(cls, values)

    @field_validator("branch")
    @classmethod
    def _known_placeholders(cls, value: str | None) -> str | None:
        return value if value is None or isinstance(value, dg.EnvVar) else branches.check_template(value)

    def __init__(self, **values: Any) -> None:
        super().__init__(**{name: _concealed(name, value) for name, value in values.items()})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield (name, _shown(name, value) if name in (*_PLACES, "token") else value)

    @property
    def registry(self) -> Registry:
        """The registry, opened once in a process. Raises `CatalogOutdated`, `InputError`."""
        path, catalog, store = (_absolute(name, _plain(getattr(self, name))) for name in _PLACES)
        actor, token, compression = _plain(self.actor), _plain(self.token), _plain(self.compression)
        return _open(path, catalog, store, actor, token, compression, self.verify_reads)

    @property
    def pages(self) -> str | None:
        """The address of the pages of the registry, if a server has them."""
        place = _plain(self.pages_url) or _plain(self.path) or ""
        return place.rstrip("/") if place.startswith(("https://", "http://")) else None

    @property
    def location(self) -> str:
        """The absolute location of the data without secrets: the store, else the folder or the server. Empty if
        unknown, as with an environment variable that is not set."""
        for name in ("store", "path"):
            if place := _absolute(name, _plain(getattr(self, name))):
                return redacted(place)
        return ""

    # --- in ops and in bodies of assets ------------------------------------------------------------------------------

    def load(
        self,
        context: Any,
        dataset: str,
        kind: Any = None,
        *,
        ref: str | None = None,
        component: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Any:
        """Read a dataset in an op or in the body of an asset, on the branch of the run or at a ref; as a `kind` such as
        `polars.LazyFrame` (an Arrow table by default).

        The version is recorded as an input of all that the step writes later, with `commit` or as its outputs. Raises `NotFound`.
        """
        step = step_of(context)
        branch = self.branch_of(step.run_tags, step.run_id)
        try:
            found = self.registry.dataset(dataset)
            version, fallback = self.version_on(found, ref or branch, pinned=ref is not None)
        except NotFound:
            note_body_read(step, BodyRead(dataset, ref, None))
            raise
        note_body_read(step, BodyRead(dataset, ref, version.digest))
        names = [component] if component else list(dict.fromkeys(c.name for c in version.components))
        read = InputVersion(
            dataset=found.name,
            version=version.number,
            digest=version.digest,
            ref=ref or branch,
            components=(component,) if component else (),
            fallback=fallback,
            uuid=version.record.uuid,
        )
        note_read(step, context.log, version, read)
        context.log.info(f"Loading {version}")
        value = Loader(understood(kind), "pyarrow", columns, self.connection).load(version, names)
        note_loaded(step, ".".join(found.name.split("/")[-2:]), value)
        return value

    def commit(
        self,
        context: Any,
        dataset: str,
        components: Any,
        *,
        key: str | Sequence[str] = (),
        message: str | None = None,
    ) -> Version:
        """Commit a value, or a dict of components, in an op or in the body of an asset, to the branch of the run.

        It replaces what the dataset had. The run, the step and the versions that the step has read are recorded. Raises as
        `Dataset.commit`.
        """
        step = step_of(context)
        branch = self.branch_of(step.run_tags, step.run_id)
        values = components if isinstance(components, Mapping) else {None: components}
        draft = self.registry.draft(
            dataset,
            branch,
            message=message or f"Written by {step.step.key}",
            overwrite=True,
            fallback=self.fallback_of(dataset, branch),
            provenance=provenance_of(step, None),
        )
        with draft:
            draft.clear()
            for name, value in values.items():
                draft.add(name or "data", value, key=key if is_table(value) else ())
        context.log.info(f"{draft.version} on {branch}: {draft.result.new_bytes:,} new bytes")
        return draft.version

    def for_pipes(self, context: Any, *, prefix: str = "") -> dict[str, Any]:
        """The arguments of the client of Dagster Pipes with which the process that it starts opens the registry (see
        `dataset_registry.pipes`): `client.run(context=context, command=…, **registry.for_pipes(context))`.

        The location of the registry and the token are in `env`, the branch of the run in `extras`. `prefix` is that of
        the IO manager.
        """
        from dataset_registry.dagster_io.pipes import arguments

        return arguments(context, self, prefix)

    @property
    def connection(self) -> Connection:
        """What other processes open the registry with."""
        found = self.places()
        return Connection(found.pop("path", None), **found)

    def places(self) -> dict[str, str]:
        """Where the registry is, who acts, and the token: the settings of `Registry.open` that are set."""
        found = {name: _plain(getattr(self, name)) for name in ("path", "catalog", "store", "actor", "token")}
        found |= {name: _absolute(name, found[name]) for name in _PLACES}
        return {name: value for name, value in found.items() if value is not None}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Log the absolute location of the registry, to make a wrong relative path visible."""
        path, catalog, store = (_absolute(name, _plain(getattr(self, name))) for name in _PLACES)
        is_new = path is not None and "://" not in path and not catalog and not (Path(path) / "catalog.sqlite").exists()
        if context.log is not None:
            places = " + ".join(redacted(place) for place in ((catalog, store) if catalog else (path,)) if place)
            context.log.info(f"Registry: {places}{' (new)' if is_new else ''}")

    @property
    def tracked_branch(self) -> str:
        """The branch that the assets of the Dagster instance stand for. Raises `InputError` for a template without a value."""
        template = self._template
        return self.fallback_branch if branches.is_per_run(template) else branches.expand(template, None, {})

    @property
    def _template(self) -> str:
        return _plain(self.branch) or os.environ.get(BRANCH_VARIABLE) or self.fallback_branch

    def branch_of(
        self, run_tags: Mapping[str, str] | None = None, run_id: str | None = None, chosen: str | None = None
    ) -> str:
        """The branch of a run with these tags and this id; `chosen` is a branch without a tag, instead of the resource's.

        Raises `InputError` for an unknown tag of the registry's namespace.
        """
        tags = run_tags or {}
        for tag in tags:
            if tag in _FORMER_TAGS:
                _log.warning("The run tag %r is deprecated: use %r", tag, _FORMER_TAGS[tag])
            elif tag not in (BRANCH_TAG, RECOMPUTE_TAG, TAG_TAG) and tag.lower().replace("_", "-").startswith(
                _NAMESPACES
            ):
                raise InputError(
                    f"The run has the tag {tag!r}, which is unknown. Did you mean {BRANCH_TAG!r}?", tag=tag
                )
        template = tags.get(BRANCH_TAG) or tags.get("dataset_registry/branch") or chosen or self._template
        if run_id is None and branches.is_per_run(template):  # no run: as when an asset's value is loaded
            return self.tracked_branch
        return branches.expand(template, run_id, tags)

    def version_on(self, dataset: Dataset, ref: str, *, pinned: bool = False) -> tuple[Version, str | None]:
        """The version that a run reads at a ref, and the branch that was read instead if the dataset lacks the requested one.

        With `pinned`, there is no other. Raises `NotFound`.
        """
        try:
            return dataset.version(ref), None
        except NotFound:
            fallback = self.fallback_of(dataset.name, ref)
            if pinned or ref == fallback:
                raise
            return dataset.version(fallback), fallback

    def fallback_of(self, dataset: str, branch: str) -> str:
        """The branch that a dataset without `branch` is read from: the tracked branch if it has that, else the fallback."""
        tracked = self.tracked_branch
        if tracked in (branch, self.fallback_branch):
            return self.fallback_branch
        try:
            self.registry.dataset(dataset).branch(tracked)
        except NotFound:
            return self.fallback_branch
        return tracked


def known_settings(of: type[BaseModel], values: Any) -> Any:
    """The same values. Raises `ValueError` for a setting that does not exist, which pydantic would ignore here."""
    for name in values if isinstance(values, Mapping) else ():
        if name not in of.model_fields:
            raise ValueError(f"{of.__name__} has no setting {name!r}. {suggestion(str(name), list(of.model_fields))}")
    return values


_NAMESPACES = ("dataset-registry/", "registry/")
_PLACES = ("path", "catalog", "store")

_concealed_values: dict[str, str] = {}


def _concealed(name: str, value: Any) -> Any:
    """Move a value with a secret into an environment variable of this process; return other values unchanged.

    Dagster stores and shows the configuration of a resource, but only the names of environment variables. Each process
    that imports the definitions sets the variable again.
    """
    if not isinstance(value, str) or isinstance(value, dg.EnvVar):
        return value
    if name != "token" and not (name in _PLACES and has_secrets(value)):
        return value
    variable = _concealed_values.setdefault(value, f"{_CONCEALED}{len(_concealed_values) + 1}")
    os.environ[variable] = value
    return dg.EnvVar(variable)


_CONCEALED = "DATASET_REGISTRY_CONCEALED_"


def _plain(value: str | None) -> str | None:
    """The plain value of a field; for an environment variable, its content."""
    return value.get_value() if isinstance(value, dg.EnvVar) else value


def _shown(name: str, value: Any) -> Any:
    """A value as `repr` shows it: without secrets."""
    if isinstance(value, dg.EnvVar):
        if not value.env_var_name.startswith(_CONCEALED):
            return value
        value = value.get_value()
    return value if value is None else "***" if name == "token" else redacted(str(value))


def _absolute(name: str, place: str | None) -> str | None:
    """A folder, or the file of a SQLite catalog, as an absolute path."""
    if not place:
        return place
    base = Path(os.environ.get("DAGSTER_HOME") or "").absolute()
    if name == "catalog":
        start = "sqlite:///"
        is_relative = place.startswith(start) and not place.startswith((start + "/", start + ":"))
        return f"{start}{base / place.removeprefix(start)}" if is_relative else place
    if "://" in place:
        return place
    return str(base / Path(place).expanduser())


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
        interface="dagster",
    )
