"""A world to run Dagster in: a registry of its own, an instance of its own, and what tests ask of both."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dataset_registry import Registry, Version
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
BRANCH = "registry/branch"


class World:
    """Real runs, in this process, on an instance in memory and a registry in a folder."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance
        self.resource = DatasetRegistryResource(path=str(folder), actor="alice")

    @property
    def registry(self) -> Registry:
        return self.resource.registry

    def resources(self, *, prefix: str = "", resource_branch: str | None = None, **options: Any) -> dict[str, Any]:
        resource = DatasetRegistryResource(path=str(self.folder), actor="alice", branch=resource_branch, **options)
        return {"io_manager": DatasetRegistryIOManager(registry=resource, prefix=prefix), "registry": resource}

    def materialize(
        self,
        assets: Sequence[Any],
        *select: str,
        partition: str | None = None,
        span: tuple[str, str] | None = None,
        branch: str | None = None,
        prefix: str = "",
        **options: Any,
    ) -> dg.ExecuteInProcessResult:
        """Run assets (all, or the named ones), for one partition or for a span of them in one run."""
        tags = {RANGE_START: span[0], RANGE_END: span[1]} if span else {}
        return dg.materialize(
            assets,
            selection=list(select) or None,
            partition_key=partition,
            instance=self.instance,
            tags=tags | ({BRANCH: branch} if branch else {}),
            resources=self.resources(prefix=prefix, **options),
        )

    def version(self, address: str) -> Version:
        return self.registry.version(address)

    def received(self, value: Any, kind: Any = None) -> Any:
        """What a downstream asset gets, annotated `kind`, of an upstream one that returned `value`."""
        seen: list[Any] = []

        def source():  # type: ignore[no-untyped-def]
            return value

        def sink(source):  # type: ignore[no-untyped-def]
            seen.append(source)

        sink.__annotations__ = {"return": None} | ({} if kind is None else {"source": kind})
        self.materialize([dg.asset(source), dg.asset(sink)])
        return seen[0]

    def is_stored(self, path: str | Path) -> bool:
        """Whether a path is a file of the store itself."""
        return Path(path).is_file() and (self.folder / "objects") in Path(path).parents


def materialized(result: Any, key: str | Sequence[str], partition: str | None = None) -> dg.AssetMaterialization:
    """The one materialization of an asset (of one partition) in a run."""
    name = dg.AssetKey(key)
    found = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == name and partition in (None, event.partition)
    ]
    assert len(found) == 1, f"{len(found)} materializations of {name}"
    return found[0]


def shown(result: Any, key: str | Sequence[str], partition: str | None = None) -> dict[str, Any]:
    """The metadata of that materialization, as plain values; a table as the list of its rows."""
    found = materialized(result, key, partition).metadata
    return {k: v.records if isinstance(v, dg.TableMetadataValue) else v.value for k, v in found.items()}


def data_version(result: Any, key: str | Sequence[str], partition: str | None = None) -> str:
    return (materialized(result, key, partition).tags or {})["dagster/data_version"]


@contextmanager
def refused(kind: type[Exception], match: str) -> Iterator[None]:
    """A run that fails in the IO manager, with exactly this error (Dagster raises its cause in process)."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind, repr(caught.value)
    assert re.search(match, str(caught.value), re.DOTALL), str(caught.value)


def quiet_instance() -> dg.DagsterInstance:
    """An instance in memory that does not fill the output of a failed test with its own log."""
    return dg.DagsterInstance.ephemeral(settings={"python_logs": {"python_log_level": "CRITICAL"}})


@pytest.fixture(scope="session")
def instance() -> Iterator[dg.DagsterInstance]:
    """One instance for tests that do not look at history: run ids differ anyway."""
    with quiet_instance() as opened:
        yield opened


@pytest.fixture
def make_world(sqlite_template: Path, tmp_path: Path) -> Iterator[Callable[[dg.DagsterInstance], World]]:
    made: list[World] = []

    def make(instance: dg.DagsterInstance) -> World:
        folder = tmp_path / f"registry-{len(made)}"
        folder.mkdir()
        shutil.copy(sqlite_template, folder / "catalog.sqlite")
        made.append(World(folder, instance))
        return made[-1]

    yield make
    for world in made:
        world.registry.close()


@pytest.fixture
def world(make_world: Callable[[dg.DagsterInstance], World], instance: dg.DagsterInstance) -> World:
    """An empty registry, and the shared instance."""
    return make_world(instance)


@pytest.fixture
def fresh(make_world: Callable[[dg.DagsterInstance], World]) -> Iterator[World]:
    """An empty registry, and an instance without history: for staleness and stored values."""
    with quiet_instance() as opened:
        yield make_world(opened)
