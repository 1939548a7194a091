"""What opening a registry does about the revision of its catalog."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.catalog.engine import HEAD, REVISION_TABLE
from dataset_registry.errors import CatalogOutdated
from tests.migrations import support
from tests.migrations.conftest import Small
from tests.waiting import SAFETY

COMMAND = "dataset-registry db upgrade"


def _open(catalog: Catalog, folder: Path, suffix: str = "") -> Registry:
    url = catalog.url.render_as_string(hide_password=False) + suffix
    return Registry.open(catalog=url, store=str(folder / "store"), actor="ada")


def test_an_empty_sqlite_catalog_is_made_by_opening_it_and_a_postgresql_one_by_a_command(
    catalog: Catalog, tmp_path: Path
) -> None:
    if not catalog.is_sqlite:
        with pytest.raises(CatalogOutdated, match=COMMAND) as refusal:
            _open(catalog, tmp_path)
        assert refusal.value.code == "catalog_outdated"
        assert "no tables yet" in str(refusal.value)
        assert support.query(catalog, "SELECT 1 FROM pg_namespace WHERE nspname = 'dataset_registry'") == []
        migrate.upgrade(catalog)
    with _open(catalog, tmp_path) as registry:
        assert registry.create_dataset("a").commit({"data": b"x"}).number == 1
    assert catalog.revision() == HEAD


@pytest.mark.parametrize("revision", [None, "0001", "0005", "0009"])
def test_an_older_sqlite_catalog_is_upgraded_by_opening_it_and_a_postgresql_one_by_a_command(
    small: Small, revision: str | None
) -> None:
    file = support.add_file(small.catalog, support.File(b"old bytes", "binary"))
    support.add_dataset(small.catalog, "a", {3: file})
    if revision is not None:
        migrate.upgrade(small.catalog, revision)
    if not small.catalog.is_sqlite:
        before = support.snapshot(small.catalog)
        with pytest.raises(CatalogOutdated, match=COMMAND) as refusal:
            _open(small.catalog, small.folder)
        assert refusal.value.fields == {"found": revision, "wanted": HEAD}
        assert small.catalog.url.password not in str(refusal.value)
        assert small.catalog.revision() == revision
        assert support.snapshot(small.catalog) == before
        migrate.upgrade(small.catalog)
    with _open(small.catalog, small.folder) as registry:
        assert support.content(registry.dataset("a").version("v3")) == b"old bytes"
    assert small.catalog.revision() == HEAD


def test_a_catalog_newer_than_the_package_says_to_install_the_newer_version(catalog: Catalog, tmp_path: Path) -> None:
    migrate.upgrade(catalog)
    support.execute(catalog, f"UPDATE {REVISION_TABLE} SET version_num = '9999'")
    before = support.snapshot(catalog)

    with pytest.raises(CatalogOutdated, match="Install that version") as refusal:
        _open(catalog, tmp_path)
    assert refusal.value.fields == {"found": "9999", "wanted": HEAD}
    assert COMMAND not in str(refusal.value)
    assert support.snapshot(catalog) == before


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
def test_the_command_in_the_message_is_about_the_schema_that_was_opened(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(CatalogOutdated, match=r"schema=team_a"):
        _open(catalog, tmp_path, "?schema=team_a")


@pytest.mark.parametrize(
    ("empty_url", "schema"),
    [
        ("sqlite", "dataset_registry"),
        ("postgresql", "dataset_registry"),
        ("postgresql", "public"),
        ("postgresql", "Team A"),
    ],
    indirect=["empty_url"],
)
def test_tables_of_dagster_in_the_same_database_do_not_matter(catalog: Catalog, tmp_path: Path, schema: str) -> None:
    prefix = "" if catalog.is_sqlite else "public."
    support.execute(catalog, f"CREATE TABLE {prefix}alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    support.execute(catalog, f"INSERT INTO {prefix}alembic_version VALUES ('7e2f3204cf8e')")
    support.execute(catalog, f"CREATE TABLE {prefix}runs (id INTEGER PRIMARY KEY)")
    url = catalog.url.render_as_string(hide_password=False)
    if not catalog.is_sqlite:
        url += f"?schema={schema.replace(' ', '%20')}"
    own = Catalog(url)
    migrate.upgrade(own)
    assert own.revision() == HEAD
    with Registry.open(catalog=url, store=str(tmp_path / "store"), actor="ada") as registry:
        registry.create_dataset("a").commit({"data": b"x"})
    if schema == "dataset_registry" and not catalog.is_sqlite:
        migrate.check(own)
    support.go_down(own, "base")
    own.close()
    assert support.query(catalog, f"SELECT version_num FROM {prefix}alembic_version") == [("7e2f3204cf8e",)]
    assert support.query(catalog, f"SELECT count(*) FROM {prefix}runs") == [(0,)]


_RACE = """
import sys
from dataset_registry.catalog import Catalog
from dataset_registry.catalog.engine import HEAD
from dataset_registry.catalog.opening import make_ready
folder = sys.argv[1]
for number in range(3):
    catalog = Catalog(f"sqlite:///{folder}/{number}/catalog.sqlite")
    print("ready", flush=True)
    sys.stdin.readline()
    make_ready(catalog)
    assert catalog.revision() == HEAD
    catalog.close()
"""


def test_two_processes_that_create_the_same_sqlite_catalog_at_once_both_succeed(tmp_path: Path) -> None:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [
        subprocess.Popen([sys.executable, "-c", _RACE, str(tmp_path)], **pipes, text=True, cwd=Path.cwd())  # type: ignore[call-overload]
        for _ in range(2)
    ]
    for _ in range(3):
        for process in processes:
            process.stdout.readline()
        for process in processes:
            with suppress(BrokenPipeError):  # it failed, and says how
                process.stdin.write("go\n")
                process.stdin.flush()
    errors = [process.communicate(timeout=SAFETY)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    catalog = Catalog(f"sqlite:///{tmp_path}/0/catalog.sqlite")
    migrate.check(catalog)
    catalog.close()


def test_a_catalog_at_head_is_opened_without_importing_alembic(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "registry"):
        pass
    code = (
        "import sys; from dataset_registry import Registry; Registry.open(sys.argv[1]).close(); "
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "registry")], check=False).returncode == 0
