"""Generated baselines: whatever rows an existing catalog has, each byte is read after every step, or its refusal has a name."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.errors import RegistryError
from tests import servers
from tests.conftest import DATABASES
from tests.migrations import support

_numbers = itertools.count(1)
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
_NAMES = st.one_of(
    _TEXT, st.sampled_from(["raw/a", "raw/A", "raw/a@main", "v1", "..", " ", "a//b", "é", "e\u0301", '"', "-x"])
)
_DATA = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"id,n\n1,2\n", b"id,n\n01,\n", b'[{"a": 1}]', b"", b"PAR1", b"a" * 5000, support.parquet_bytes(3)]
    ),
)
EXTRAS = (
    "CREATE INDEX mine ON dataset_versions (dataset_id, uploaded_by)",
    "CREATE TABLE notes (id INT, version INT REFERENCES dataset_versions(id))",
    "ALTER TABLE files ADD COLUMN checksum VARCHAR(32) DEFAULT 'x'",
    "ALTER TABLE dataset_versions ADD COLUMN reviewed_by TEXT",
    "ALTER TABLE users ADD COLUMN password TEXT",
    "CREATE VIEW report AS SELECT dataset_id, count(*) AS n FROM dataset_versions GROUP BY dataset_id",
)


@dataclass(frozen=True)
class Stored:
    """A row of `files`: where its bytes are, and what its columns say of them."""

    data: bytes
    place: str  # inline, path, both (the path is an upload's name), gone (the path leads nowhere)
    storage_type: str
    file_type: str | None
    mime_type: str | None
    is_sized: bool


@st.composite
def stored_files(draw: st.DrawFn) -> Stored:
    place = draw(st.sampled_from(["inline", "inline", "path", "path", "both", "gone"]))
    types = {"inline": ["database", "inline", "DB", ""], "both": ["database"]}.get(
        place, ["filesystem", "local", "disk"]
    )
    return Stored(
        draw(_DATA),
        place,
        draw(st.sampled_from(types)),
        draw(st.sampled_from([None, "", "csv", "CSV", "json", "parquet", "text/plain", "exe"])),
        draw(st.one_of(st.none(), _TEXT)),
        draw(st.booleans()),
    )


@dataclass(frozen=True)
class Drawn:
    """A baseline: rows of `files`, and by dataset the number of each version with the place of its file in that list."""

    files: list[Stored]
    datasets: dict[str, dict[int, int]]
    users: list[str]
    extras: tuple[str, ...]


@st.composite
def baselines(draw: st.DrawFn) -> Drawn:
    files = draw(st.lists(stored_files(), min_size=1, max_size=6))
    numbers = st.one_of(st.integers(1, 9), st.integers(-3, 2**31 - 2))
    versions = st.dictionaries(numbers, st.integers(0, len(files) - 1), max_size=4)
    return Drawn(
        files,
        draw(st.dictionaries(_NAMES, versions, min_size=1, max_size=4)),
        draw(st.lists(_NAMES, unique=True, max_size=3)),
        tuple(draw(st.sets(st.sampled_from(EXTRAS)))),
    )


@contextmanager
def database(kind: str, server: str | None, folder: Path) -> Iterator[Catalog]:
    """A database of its own for each example."""
    if server is None:
        url = f"sqlite:///{folder / 'catalog.sqlite'}"
    else:
        name = f"generated_{os.getpid()}_{next(_numbers)}"
        servers.create_database(server, name, "template1")
        url = server.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://") + f"/{name}"
    catalog = Catalog(url)
    try:
        yield catalog
    finally:
        catalog.close()


def fill(catalog: Catalog, drawn: Drawn, folder: Path) -> dict[tuple[str, int], bytes | None]:
    """Create the baseline; what each version should read as (None: its path leads nowhere)."""
    support.create_hand_made_tables(catalog)
    users = [support.insert(catalog, "users", username=name) for name in drawn.users]
    ids = []
    for number, file in enumerate(drawn.files):
        path = folder / "outside" / f"{number}.bin"
        if file.place == "path":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(file.data)
        ids.append(
            support.insert(
                catalog,
                "files",
                storage_type=file.storage_type,
                file_type=file.file_type,
                mime_type=file.mime_type,
                file_data=file.data if file.place in ("inline", "both") else None,
                file_path=None if file.place == "inline" else "upload.csv" if file.place == "both" else str(path),
                file_size=len(file.data) if file.is_sized else None,
            )
        )
    expected: dict[tuple[str, int], bytes | None] = {}
    for position, (name, versions) in enumerate(drawn.datasets.items()):
        dataset = support.insert(catalog, "datasets", name=name)
        for number, file in versions.items():
            user = users[position % len(users)] if users else None
            row = {"dataset_id": dataset, "version_number": number, "file_id": ids[file], "uploaded_by": user}
            support.insert(catalog, "dataset_versions", **row)
            expected[name, number] = None if drawn.files[file].place == "gone" else drawn.files[file].data
    for extra in drawn.extras:
        support.execute(catalog, extra)
    return expected


def contents(catalog: Catalog, folder: Path) -> dict[tuple[str, int], bytes | None]:
    """What each version reads as (None: it cannot be read, which is an error with a reason)."""
    read: dict[tuple[str, int], bytes | None] = {}
    with opened(catalog, folder) as registry:
        for dataset in registry.datasets():
            for version in dataset.tree():
                read[dataset.name, version.number] = None
                with suppress(RegistryError):
                    read[dataset.name, version.number] = support.content(version)
    return read


def opened(catalog: Catalog, folder: Path) -> Registry:
    url = catalog.url.render_as_string(hide_password=False)
    return Registry.open(catalog=url, store=str(folder / "store"), actor="ada")


class Stopped(BaseException):
    """The end of an adoption in its middle."""


def stop(what: str, done: int, total: int | None) -> None:
    raise Stopped


def rows_without_sizes(catalog: Catalog) -> support.Rows:
    """All rows; sizes are filled in where they are unknown, which is no loss."""
    rows = support.snapshot(catalog)
    rows["files"] = [{name: value for name, value in row.items() if name != "file_size"} for row in rows["files"]]
    return {table: sorted(found, key=repr) for table, found in rows.items()}


def check_every_step(kind: str, server: str | None, drawn: Drawn) -> None:
    with TemporaryDirectory() as name, database(kind, server, Path(name)) as catalog:
        folder = Path(name)
        expected = fill(catalog, drawn, folder)
        before = rows_without_sizes(catalog)
        for revision in support.REVISIONS:
            migrate.upgrade(catalog, revision)
        migrate.check(catalog)
        assert contents(catalog, folder) == expected
        for revision in reversed(support.REVISIONS[:-1]):
            support.go_down(catalog, revision)
        after = rows_without_sizes(catalog)
        assert {table: after[table] for table in before} == before, "down again, the catalog is as it was"
        migrate.upgrade(catalog)
        with opened(catalog, folder) as registry:
            with suppress(Stopped):
                registry.adopt(progress=stop)
            failed = registry.adopt().failed
            assert len(failed) == sum(file.place == "gone" for file in drawn.files)
            assert registry.adopt().files == 0
        assert contents(catalog, folder) == expected
        for revision in reversed(support.REVISIONS[:-1]):
            support.go_down(catalog, revision)
        migrate.upgrade(catalog)
        assert contents(catalog, folder) == expected, "an adopted catalog goes down and up again"


EXAMPLES = {"sqlite": 4, "postgresql": 2}


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("factor", [1, pytest.param(50, marks=pytest.mark.long)], ids=["few", "many"])
def test_a_generated_baseline_keeps_every_byte(kind: str, factor: int, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgresql_url") if kind == "postgresql" else None

    @settings(
        max_examples=EXAMPLES[kind] * factor,
        deadline=None,
        derandomize=factor == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate] if factor == 1 else [Phase.generate, Phase.shrink],
    )
    @given(drawn=baselines())
    def check(drawn: Drawn) -> None:
        check_every_step(kind, server, drawn)

    check()
