"""What the scenarios of test_registry.py share: the ways to reach a registry, and contents to put into one."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from dataset_registry import Dataset, Registry, RegistryError, Version
from dataset_registry.store import Store, open_store
from tests import serving

Test = TypeVar("Test", bound=Callable[..., None])

WAYS = ("embedded", "postgresql+s3", "rest")
REST_ON_SERVERS = "rest on postgresql+s3"


@dataclass
class Way:
    """A registry as one way reaches it, as the administrator `admin`; `owner` looks past all doors."""

    kind: str
    catalog: str
    store: str
    owner: Registry
    registry: Registry
    served: serving.Served | None = None
    opened: list[Registry] = field(default_factory=list)

    @property
    def is_rest(self) -> bool:
        return self.served is not None

    @property
    def interface(self) -> str:
        return "rest" if self.is_rest else "python"

    def user(self, name: str, *, role: str = "member", **token: Any) -> Registry:
        """The registry as a user reaches it this way, made if there is none; over REST by a token of its own."""
        if name not in {user.name for user in self.owner.users()}:
            self.owner.create_user(name, role=role)
        if self.served is not None:
            return self.served.registry(name, **token)
        self.opened.append(Registry.open(catalog=self.catalog, store=self.store, actor=name))
        return self.opened[-1]

    def objects(self) -> Store:
        """The store behind the registry, to do it harm."""
        return open_store(self.store)


@contextmanager
def reached(kind: str, catalog: str, store: str) -> Iterator[Way]:
    """A registry, reached one way."""
    with ExitStack() as stack:
        owner = stack.enter_context(Registry.open(catalog=catalog, store=store))
        owner.create_user("admin", role="administrator")
        if kind.startswith("rest"):
            served = stack.enter_context(serving.in_thread(catalog=catalog, store=store))
            way = Way(kind, catalog, store, owner, served.registry("admin"), served)
        else:
            registry = stack.enter_context(Registry.open(catalog=catalog, store=store, actor="admin"))
            way = Way(kind, catalog, store, owner, registry)
        yield way
        for opened in way.opened:
            opened.close()


def s3_store(server: str, folder: Path) -> str:
    """An empty store in the bucket of a server, with a cache of its own."""
    bucket, _, options = server.partition("?")
    return f"{bucket}/contract-{uuid4().hex}?{options}&cache={folder / 'cache'}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(version: Version, component: str | None = None, index: int = 0) -> bytes:
    """The bytes of a component."""
    with version.open(component, index=index) as stream:
        return stream.read()


def numbers(versions: Sequence[Version]) -> list[int]:
    return [version.number for version in versions]


def names(pointers: Sequence[Any]) -> list[str]:
    return [pointer.name for pointer in pointers]


def heads(dataset: Dataset) -> dict[str, int]:
    """Where the branches are."""
    return {branch.name: branch.version_number for branch in dataset.branches()}


def keys(version: Version) -> list[tuple[str, int, str]]:
    """Name, index and type of each component."""
    return [(c.name, c.index, c.type) for c in version.components]


def error_of(call: Callable[[], object]) -> RegistryError:
    """The error of ours that a call raises, which says what to do next."""
    with pytest.raises(RegistryError) as caught:
        call()
    error = caught.value
    assert len(str(error)) > 20, error
    assert str(error).rstrip()[-1] in ".?)]…" or ": dataset-registry " in str(error), f"a sentence: {error}"
    return error


def parquet_bytes(**columns: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def excel_bytes(**sheets: Sequence[Sequence[Any]]) -> bytes:
    """A workbook; each sheet as the list of its rows, the header first."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    """A scenario that runs on REST over PostgreSQL and S3 too."""
    test.everywhere = True  # type: ignore[attr-defined]
    return test
