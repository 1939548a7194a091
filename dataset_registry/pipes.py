"""Dagster Pipes: a process that Dagster started reads from the registry and commits to it, with the lineage of the run.

The asset passes `registry.for_pipes(context)` to the client of Pipes; the process opens the registry with `open_registry`. It
needs this package, and of Dagster only `dagster-pipes`.
"""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dataset_registry.connection import VARIABLES
from dataset_registry.dataset import Draft
from dataset_registry.errors import InputError, NotFound
from dataset_registry.model.partitions import component_of, partition_key
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.registry import Registry
from dataset_registry.tabular.formats import is_table
from dataset_registry.version import Version

if TYPE_CHECKING:
    from dagster_pipes import PipesContext

EXTRA = "dataset_registry"
"""Where the extras of Pipes have the settings of a session."""

PLACES = {"path" if name == "location" else name: variable for name, variable in VARIABLES.items()}
"""The environment variables that say where the registry is. They may have secrets, which extras must not."""


class PipesRegistry:
    """The registry in a process that Dagster started, on the branch of the run. `registry` is the registry itself."""

    def __init__(self, pipes: "PipesContext") -> None:
        session = pipes.extras.get(EXTRA)
        if not isinstance(session, Mapping):
            raise InputError(
                "This process got no session of the registry. Start it with "
                "client.run(context=context, command=…, **registry.for_pipes(context))."
            )
        places = {name: os.environ.get(variable) or None for name, variable in PLACES.items()}
        self.registry = Registry.open(
            places["path"],
            catalog=places["catalog"],
            store=places["store"],
            actor=places["actor"],
            token=places["token"],
            interface="dagster",
        )
        self._pipes = pipes
        self._session = session
        self._reads: list[InputVersion] = []

    def __enter__(self) -> "PipesRegistry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.registry.close()

    @property
    def branch(self) -> str:
        """The branch of the run."""
        return str(self._session["branch"])

    def version(self, dataset: str, *, ref: str | None = None) -> Version:
        """The version of a dataset on the branch of the run, or at a ref. It is recorded as an input of what is committed later.

        A dataset without the branch is read from the tracked branch, else from the fallback branch. Raises `NotFound`.
        """
        found = self.registry.dataset(dataset)
        refs = [ref] if ref is not None else [self.branch, *self._others]
        for asked in refs:
            try:
                version = found.version(asked)
            except NotFound:
                if asked == refs[-1]:
                    raise
                continue
            fallback = asked if asked != refs[0] else None
            read = InputVersion(
                found.name, version.number, version.digest, refs[0], fallback=fallback, uuid=version.record.uuid
            )
            self._reads.append(read)
            version.note_read(self._pipes.run_id)
            return version
        raise AssertionError("the last ref raised")

    @property
    def _others(self) -> list[str]:
        return [str(name) for name in self._session["fallbacks"]]

    def commit(
        self,
        dataset: str,
        components: Any,
        *,
        key: str | Sequence[str] = (),
        message: str | None = None,
        asset_key: str | None = None,
    ) -> Version:
        """Commit a value, or a dict of components, and report the materialization to Dagster.

        It replaces what the dataset had; in a run of one partition that partition, and in a run of several the value is a dict of
        all of them. `asset_key` is needed if the step has several assets. Raises as `Dataset.commit`.
        """
        pipes, session = self._pipes, self._session
        partitions = [str(key) for key in session["partitions"]]
        if len(partitions) > 1 and (not isinstance(components, Mapping) or set(components) != set(partitions)):
            raise InputError(
                f"This run has {len(partitions)} partitions: pass a dict with the content of each, by its key."
            )
        asset = asset_key or (pipes.asset_key if pipes.is_asset_step and len(pipes.asset_keys) == 1 else None)
        draft = self.registry.draft(
            dataset,
            self.branch,
            message=message or f"Written by {session['step']}",
            overwrite=True,
            fallback=self._others[0] if self._others else None,
            provenance=Provenance(
                run_id=pipes.run_id,
                step=session["step"],
                asset_key=asset,
                partition=", ".join(partitions) or None,
                code_version=session["code_versions"].get(asset),
                inputs=tuple(self._reads),
                metadata={"job": pipes.job_name or ""},
            ),
        )
        by_partition: Mapping[str | None, Any] = {None: components}
        if partitions:
            by_partition = components if len(partitions) > 1 else {partitions[0]: components}
        with draft:
            if not partitions:
                draft.clear()
            for partition, value in by_partition.items():
                if partition is not None:
                    draft.clear_partition(partition_key(partition))
                for name, part in (value if isinstance(value, Mapping) else {None: value}).items():
                    target: tuple[str, Mapping[str, object]] = (name or "data", {})
                    if partition is not None:
                        target = component_of(partition_key(partition), name)
                    draft.add(target[0], part, metadata=target[1], key=key if is_table(part) else ())
        if pipes.is_asset_step:
            self._report(draft, bool(partitions), asset_key)
        return draft.version

    def _report(self, draft: Draft, is_partitioned: bool, asset_key: str | None) -> None:
        """Report the materialization with the metadata that those of the IO manager have."""
        result, version, tracked = draft.result, draft.version, str(self._session["tracked"])
        facts: dict[str, Any] = {}
        if self.branch != tracked:
            try:
                head = self.registry.dataset(version.dataset).version(tracked).number
            except NotFound:
                head = 0
            facts["registry/side_run"] = {"raw_value": f"**on branch `{self.branch}`, not `{tracked}`**", "type": "md"}
            facts["registry/tracked_version"] = head
        facts |= {
            "registry/version_number": version.number,
            "registry/branch": self.branch,
            "registry/new_bytes": result.new_bytes,
            "dagster/size_bytes": result.total_bytes,
            "dagster/table_name": version.dataset,
        }
        if not is_partitioned and version.schema.rows is not None:
            facts["dagster/row_count"] = version.schema.rows
        digest = result.digest_written if is_partitioned else version.digest
        self._pipes.report_asset_materialization(
            facts, data_version=digest if self.branch == tracked else None, asset_key=asset_key
        )


def open_registry(pipes: "PipesContext") -> PipesRegistry:
    """Open the registry in a process that Dagster started: `with open_dagster_pipes() as pipes, open_registry(pipes) as r`.

    Raises `InputError` if the asset did not pass `registry.for_pipes(context)`.
    """
    return PipesRegistry(pipes)
