"""The registry as a file system of fsspec: fsspec's own tests, and what is ours."""

import gc
import hashlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

from dataset_registry import Dataset, Registry
from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.engines.filesystem import RegistryFileSystem
from dataset_registry.errors import InputError, UnreadableFile
from tests.serving import Served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry with a dataset of a file, a small table and a large one."""
    with Registry.open(tmp_path / "registry", actor="alice") as registry:
        registry.create_dataset("raw/flights").commit(
            {
                "data": pa.table({"id": range(60_000), "text": [f"{i % 977:0200}" for i in range(60_000)]}),
                "airports": pa.table({"faa": ["JFK", "LGA"]}),
                "notes/read me.txt": b"hello",
            }
        )
    return tmp_path / "registry"


@pytest.fixture
def fs(folder: Path) -> Iterator[RegistryFileSystem]:
    found = fsspec.filesystem("registry", location=str(folder), actor="alice", skip_instance_cache=True)
    yield found
    found._registry.close()


@pytest.fixture
def flights(fs: RegistryFileSystem) -> Dataset:
    return fs._registry.dataset("raw/flights")


class _Fixtures(AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """What fsspec's tests need to know of ours."""

    @pytest.fixture
    def fs(self, folder: Path) -> Iterator[RegistryFileSystem]:
        found = fsspec.filesystem("registry", location=str(folder), actor="alice", skip_instance_cache=True)
        yield found
        found._registry.close()

    @pytest.fixture
    def fs_path(self) -> str:
        return "raw/flights@main/tests"

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *parts: "/".join(
            str(part).rstrip("/") if at < len(parts) - 1 else str(part) for at, part in enumerate(parts)
        )

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(_Fixtures, AbstractCopyTests):  # type: ignore[misc]
    """Copies within the file system."""


class TestGet(_Fixtures, AbstractGetTests):  # type: ignore[misc]
    """Copies to local files."""


class TestPut(_Fixtures, AbstractPutTests):  # type: ignore[misc]
    """Copies of local files."""


class TestOpen(_Fixtures, AbstractOpenTests):  # type: ignore[misc]
    """Modes of opening."""


class TestPipe(_Fixtures, AbstractPipeTests):  # type: ignore[misc]
    """Writing bytes."""


# --- what is ours ------------------------------------------------------------------------------------------------------


def options(folder: Path) -> dict[str, str]:
    return {"location": str(folder), "actor": "alice"}


def test_a_version_is_listed_as_it_is_checked_out(fs: RegistryFileSystem, flights: Dataset, tmp_path: Path) -> None:
    assert fs.ls("", detail=False) == ["raw"]
    assert fs.ls("registry://raw", detail=False) == ["raw/flights"]
    assert fs.ls("raw/flights", detail=False) == ["raw/flights@main"]
    root = "raw/flights@main"
    assert fs.ls(root, detail=False) == [f"{root}/airports.parquet", f"{root}/data.parquet", f"{root}/notes"]
    assert fs.ls(f"{root}/notes", detail=False) == [f"{root}/notes/read me.txt"]
    parts = fs.ls(f"{root}/data.parquet")
    assert [part["content_hash"] for part in parts] == [str(f.content_hash) for f in flights.version().files()[1:-1]]
    assert sum(part["size"] for part in parts) == sum(p.stat().st_size for p in flights.version().paths("data"))
    assert fs.cat_file(f"{root}/notes/read me.txt", start=1, end=3) == b"el"
    with pytest.raises(IsADirectoryError):
        fs.open(f"{root}/data.parquet")
    for missing in (f"{root}/nothing", "raw/flights@nowhere/x", "raw/none@main/x", "raw/none", f"{root}/notes/nothing"):
        with pytest.raises(FileNotFoundError):
            fs.info(missing)
        assert not fs.exists(missing)


def test_every_library_reads_a_url(folder: Path, flights: Dataset) -> None:
    whole = flights.version().to_arrow("data")
    url = "registry://raw/flights@main"
    assert pd.read_parquet(f"{url}/data.parquet", storage_options=options(folder)).equals(whole.to_pandas())
    assert pd.read_parquet(f"{url}/airports.parquet", storage_options=options(folder))["faa"].to_list() == [
        "JFK",
        "LGA",
    ]
    found = fsspec.filesystem("registry", **options(folder))
    assert ds.dataset(f"{url[11:]}/data.parquet", filesystem=found, format="parquet").to_table().equals(whole)
    with fsspec.open(f"{url}/airports.parquet", **options(folder)) as file:
        assert pl.read_parquet(file)["faa"].to_list() == ["JFK", "LGA"]
    with fsspec.open(f"{url}/notes/read me.txt", "r", **options(folder)) as file:
        assert file.read() == "hello"
    with duckdb.connect() as connection:
        connection.register_filesystem(found)
        counted = connection.sql(f"SELECT count(*) FROM read_parquet('{url}/data.parquet/*.parquet')")
        assert counted.fetchall() == [(60_000,)]


def test_where_the_registry_is_comes_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATASET_REGISTRY", raising=False)
    with pytest.raises(InputError, match=r"No registry given\. Set DATASET_REGISTRY"):
        fsspec.filesystem("registry", skip_instance_cache=True).ls("")
    monkeypatch.setenv("DATASET_REGISTRY", str(folder))
    assert len(pd.read_parquet("registry://raw/flights@v1/airports.parquet")) == 2
    assert len(pd.read_parquet("registry://raw/flights@v1/airports.parquet")) == 2
    with Registry.open(folder.parent / "other") as other:
        other.create_dataset("raw/flights").commit({"airports": pa.table({"faa": ["JFK", "LGA", "EWR"]})})
    monkeypatch.setenv("DATASET_REGISTRY", str(folder.parent / "other"))
    assert len(pd.read_parquet("registry://raw/flights@v1/airports.parquet")) == 3
    monkeypatch.setenv("DATASET_REGISTRY", str(folder / "elsewhere"))
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("registry", skip_instance_cache=True).ls("")


def test_a_frame_is_written_to_a_branch_and_captured(folder: Path, flights: Dataset) -> None:
    frame = pd.DataFrame({"faa": ["JFK", "LGA", "EWR"]})
    frame.to_parquet("registry://raw/flights@main/airports.parquet", storage_options=options(folder))
    frame.to_csv("registry://raw/flights@main/more/airports.csv", index=False, storage_options=options(folder))
    version = flights.version()
    assert version.number == 3
    assert [c.name for c in version.components] == ["airports", "data", "more/airports.csv", "notes/read me.txt"]
    assert version.to_pandas("airports").equals(frame)
    assert version.to_pandas("more/airports.csv").equals(frame)
    assert version.schema.tables()["airports"].rows == 3


def test_a_transaction_is_one_version_of_each_branch(fs: RegistryFileSystem, flights: Dataset) -> None:
    flights.create_branch("dev")
    with fs.transaction:
        fs.pipe_file("raw/flights@dev/a.txt", b"a")
        fs.pipe_file("raw/flights@dev/b.txt", b"b")
        fs.pipe_file("raw/flights@dev/b.txt", b"c")
        fs.pipe_file("raw/airports@main/a.txt", b"new")
        fs.rm("raw/flights@dev/data.parquet", recursive=True)
        assert not fs.exists("raw/flights@dev/a.txt")
    assert flights.version("dev").number == 2
    assert [c.name for c in flights.version("dev").components] == ["a.txt", "airports", "b.txt", "notes/read me.txt"]
    assert fs.cat_file("raw/flights@dev/b.txt") == b"c"
    assert fs.cat_file("raw/airports@main/a.txt") == b"new"
    assert flights.version().number == 1
    before = flights.version("dev").number
    with pytest.raises(RuntimeError, match="stop"), fs.transaction:
        fs.pipe_file("raw/flights@dev/d.txt", b"d")
        raise RuntimeError("stop")
    assert flights.version("dev").number == before
    fs.pipe_file("raw/flights@dev/d.txt", b"d")
    assert flights.version("dev").number == before + 1
    fs.put([__file__, __file__], ["raw/flights@dev/x.py", "raw/flights@dev/y.py"])
    fs.mv("raw/flights@dev/x.py", "raw/flights@dev/z.py")
    fs.rm(["raw/flights@dev/y.py", "raw/flights@dev/z.py"])
    assert flights.version("dev").number == before + 4


def test_what_fails_while_it_is_written_is_not_committed(fs: RegistryFileSystem, flights: Dataset) -> None:
    left = set(os.listdir(tempfile.gettempdir()))
    with pytest.raises(RuntimeError, match="stop"), fs.open("raw/flights@main/a.txt", "wb") as file:
        file.write(b"half")
        raise RuntimeError("stop")
    with pytest.raises(UnreadableFile):
        fs.pipe_file("raw/flights@main/a.parquet", b"PAR1 and no more")
    assert flights.version().number == 1
    left = set(os.listdir(tempfile.gettempdir())) - left
    assert not [name for name in left if name.startswith("dataset-registry-")]


class Bad:
    def __str__(self) -> str:
        raise RuntimeError("stop")


def writing_in_half(fs: RegistryFileSystem, folder: Path) -> dict[str, Any]:
    """Ways to write a file half and then to raise an error."""
    path = "raw/flights@main/a.txt"

    def with_fsspec(mode: str, data: Any) -> None:
        with fsspec.open(f"registry://{path}", mode, **options(folder)) as file:
            file.write(data)
            raise RuntimeError("stop")

    def with_text() -> None:
        with fs.open(path, "w") as file:
            file.write("half")
            raise RuntimeError("stop")

    def in_finally() -> None:
        file = fs.open(path, "wb")
        try:
            file.write(b"half")
            raise RuntimeError("stop")
        finally:
            file.close()

    def with_pandas() -> None:
        pd.DataFrame({"x": [1, 2, Bad()]}).to_csv(f"registry://{path}", storage_options=options(folder))

    def with_arrow() -> None:
        schema = pa.schema([("x", pa.int64())])
        with pq.ParquetWriter("raw/flights@main/a.parquet", schema, filesystem=fs) as writer:
            writer.write_table(pa.table({"x": [1]}, schema))
            raise RuntimeError("stop")

    def abandoned() -> None:
        fs.open(path, "wb").write(b"half")
        raise RuntimeError("stop")

    return {
        "bytes": lambda: with_fsspec("wb", b"half"),
        "text": lambda: with_fsspec("w", "half"),
        "text of the file system": with_text,
        "finally": in_finally,
        "pandas": with_pandas,
        "arrow": with_arrow,
        "abandoned": abandoned,
    }


@pytest.mark.parametrize("way", writing_in_half(None, Path()))  # type: ignore[arg-type]  # the names alone
def test_what_is_closed_by_an_error_is_not_committed(
    way: str, fs: RegistryFileSystem, folder: Path, flights: Dataset
) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        writing_in_half(fs, folder)[way]()
    gc.collect()
    assert flights.version().number == 1


def test_what_is_written_while_an_error_is_handled_is_committed(fs: RegistryFileSystem, flights: Dataset) -> None:
    try:
        raise RuntimeError("before")
    except RuntimeError:
        fs.pipe_file("raw/flights@main/a.txt", b"whole")
    assert fs.cat_file("raw/flights@main/a.txt") == b"whole"


def test_a_transaction_goes_on_without_what_failed_and_refuses_what_is_open(
    fs: RegistryFileSystem, flights: Dataset
) -> None:
    with fs.transaction:
        with pytest.raises(RuntimeError), fs.open("raw/flights@main/a.txt", "wb") as file:
            file.write(b"half")
            raise RuntimeError
        fs.pipe_file("raw/flights@main/b.txt", b"b")
    assert fs.cat_file("raw/flights@main/b.txt") == b"b"
    assert not fs.exists("raw/flights@main/a.txt")
    with pytest.raises(InputError, match=r"a\.txt is still open\. Close it"), fs.transaction:
        left = fs.open("raw/flights@main/a.txt", "wb")
    left.close()
    with pytest.raises(FileNotFoundError), fs.transaction:
        fs.pipe_file("raw/flights@main/c.txt", b"c")
        fs.pipe_file("raw/flights@nowhere/c.txt", b"c")
    assert not fs.exists("raw/flights@main/c.txt")
    assert flights.version().number == 2


def test_a_table_in_parts_is_written_copied_and_removed_as_a_whole(fs: RegistryFileSystem, flights: Dataset) -> None:
    root = "raw/flights@main"
    part = fs.find(f"{root}/data.parquet")[0]
    for change in (
        lambda: fs.rm_file(part),
        lambda: fs.rm(part),
        lambda: fs.pipe_file(part, b"x"),
        lambda: fs.pipe_file(f"{root}/data.parquet/more.parquet", b"x"),
        lambda: fs.cp("raw/flights@v1/data.parquet/", f"{root}/data.parquet/", recursive=True),
        lambda: fs.mv(f"{root}/data.parquet", f"{root}/new.parquet", recursive=True),
    ):
        with pytest.raises(InputError, match="as a whole"):
            change()
    assert flights.version().number == 1
    fs.rm(f"{root}/data.parquet", recursive=True)
    assert [c.name for c in flights.version().components] == ["airports", "notes/read me.txt"]


def test_a_file_that_is_moved_to_itself_stays(fs: RegistryFileSystem, flights: Dataset) -> None:
    path = "raw/flights@main/notes/read me.txt"
    for same in (path, f"registry://{path}", path.replace("@main/", "@main//")):
        fs.mv(f"registry://{path}", same)
        assert fs.cat_file(path) == b"hello"
    fs.pipe_file("raw/flights@main/[1].txt", b"1")
    fs.rm("raw/flights@main/[1].txt")
    assert not fs.exists("raw/flights@main/[1].txt")


def test_a_branch_that_moves_does_not_mix_parts(fs: RegistryFileSystem, flights: Dataset) -> None:
    path = "raw/flights@main/data.parquet"
    before = fs.find(path)
    flights.commit({"data": pa.table({"id": range(5)})})
    assert fs.isfile(path)
    parts = [fs.open(part) for part in before]
    assert pa.concat_tables(pq.read_table(part) for part in parts).num_rows == 60_000


def test_a_tag_is_looked_up_once_and_a_branch_whenever_it_is_opened(
    fs: RegistryFileSystem, flights: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    flights.create_tag("1.0")
    asked: list[str] = []
    real = EmbeddedDataset.version
    monkeypatch.setattr(EmbeddedDataset, "version", lambda self, ref: asked.append(ref) or real(self, ref))
    for ref in ("1.0", "v1", "main"):
        for _ in range(3):
            assert fs.cat_file(f"raw/flights@{ref}/notes/read me.txt") == b"hello"
    assert (asked.count("1.0"), asked.count("v1")) == (1, 1)
    assert asked.count("main") >= 3


def test_a_server_is_read_and_written_as_a_folder_is(served: Served, folder: Path) -> None:
    served.owner.create_user("alice", role="administrator")
    given = {"location": served.url, "token": served.token("alice")}
    fs = fsspec.filesystem("registry", skip_instance_cache=True, **given)
    with fs.transaction:
        fs.pipe_file("raw/flights@main/a/b.txt", b"hello")
        pd.DataFrame({"id": range(5)}).to_parquet("registry://raw/flights@main/data.parquet", storage_options=given)
    with fs.transaction:
        fs.pipe_file("raw/flights@main/c.txt", b"c")
        fs.mv("raw/flights@main/a/b.txt", "raw/flights@main/d.txt")
    assert sorted(fs.find("raw/flights@main")) == [
        f"raw/flights@main/{name}" for name in ("c.txt", "d.txt", "data.parquet")
    ]
    assert fs.cat_file("raw/flights@main/d.txt", start=1, end=3) == b"el"
    assert pd.read_parquet("registry://raw/flights@v2/data.parquet", storage_options=given)["id"].to_list() == list(
        range(5)
    )
    assert served.owner.dataset("raw/flights").version().number == 3
    with pytest.raises(PermissionError):
        fsspec.filesystem("registry", skip_instance_cache=True, **{**given, "token": "wrong"}).ls("")


def test_branches_with_slashes_are_found(fs: RegistryFileSystem, flights: Dataset) -> None:
    flights.create_branch("pr/12")
    flights.create_branch("a")
    assert fs.ls("raw/flights", detail=False) == [f"raw/flights@{ref}" for ref in ("a", "main", "pr%2F12")]
    for written in ("pr/12", "pr%2F12"):
        fs.pipe_file(f"raw/flights@{written}/x", written.encode())
        assert fs.cat_file("raw/flights@pr/12/x") == fs.cat_file("raw/flights@pr%2F12/x") == written.encode()
    assert fs.ls("raw/flights@pr%2F12/notes", detail=False) == ["raw/flights@pr%2F12/notes/read me.txt"]
    with pytest.raises(FileNotFoundError, match="Create it first"):
        fs.pipe_file("raw/flights@new%2Fone/x", b"new")
    flights.create_branch("pr")
    with pytest.raises(InputError, match=r"several refs: pr, pr/12. Write raw/flights@pr/… or raw/flights@pr%2F12/…"):
        fs.cat_file("raw/flights@pr/12/x")
    assert fs.cat_file("raw/flights@pr%2F12/x") == b"pr%2F12"


def test_what_is_no_branch_is_not_written_to(fs: RegistryFileSystem, flights: Dataset) -> None:
    flights.create_tag("1.0")
    for ref in ("1.0", "v1", "main~1"):
        with pytest.raises((OSError, InputError)):
            fs.pipe_file(f"raw/flights@{ref}/x", b"x")
    with pytest.raises(InputError, match=r"names no branch\. Write to raw/flights@main/…"):
        fs.pipe_file("raw/flights", b"x")
    with pytest.raises(InputError, match="names no file"):
        fs.pipe_file("raw/flights@main", b"x")
    with pytest.raises(ValueError, match="read \\(rb\\) or written whole"):
        fs.open("raw/flights@main/x", "ab")
    assert flights.version().number == 1


def test_a_process_opens_the_registry_by_itself(folder: Path, fs: RegistryFileSystem) -> None:
    copied = pickle.loads(pickle.dumps(fs))
    assert copied.cat_file("raw/flights@main/notes/read me.txt") == b"hello"
    assert copied.checksum("raw/flights@main/notes/read me.txt") == hashlib.sha256(b"hello").hexdigest()
    assert copied.created("raw/flights@main/data.parquet").tzinfo is not None


def test_a_reader_without_permission_is_refused_as_by_an_operating_system(folder: Path) -> None:
    with Registry.open(folder) as owner:
        for user in ("alice", "bob"):
            owner.create_user(user)
        bob = fsspec.filesystem("registry", location=str(folder), actor="bob", skip_instance_cache=True)
        path = "raw/flights@main/notes/read me.txt"
        with pytest.raises((PermissionError, FileNotFoundError)):
            bob.cat_file(path)
        owner.grant("bob", "read", "raw/flights")
        assert bob.cat_file(path) == b"hello"
        with pytest.raises(PermissionError):
            bob.pipe_file(path, b"x")
        with pytest.raises(PermissionError):
            bob.rm(path)
        assert owner.dataset("raw/flights").version().number == 1
