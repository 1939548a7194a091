"""Damage and tampering past the registry: each kind is found by `verify`, by `db check` or by `audit check`."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text, update

from dataset_registry import Registry
from dataset_registry.catalog import Transaction, captures, migrate, structure
from dataset_registry.catalog.tables import schemas
from dataset_registry.errors import CatalogOutdated, RegistryError
from dataset_registry.model.manifest import schema_digest
from tests.conftest import DATABASES, _catalog, _database
from tests.operations.support import ask

Tamper = Callable[[Registry], None]
_numbers = count(1)


def run(*statements: str) -> Tamper:
    """Do this as the owner of the database, past all triggers."""

    def tamper(registry: Registry) -> None:
        catalog = registry.access.catalog

        def work(tx) -> None:  # type: ignore[no-untyped-def]
            guards = structure.guards(tx)
            if catalog.is_sqlite:
                bodies = dict(tx.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all())
                for name in guards:
                    tx.execute(text(f"DROP TRIGGER {name}"))
                for statement in statements:
                    tx.exec_driver_sql(statement)
                for name in guards:
                    tx.exec_driver_sql(bodies[name])
            else:
                tx.execute(text("SET LOCAL session_replication_role = replica"))
                for table in ("dataset_pointers", "audit_log", "audit_seals"):
                    tx.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                for statement in statements:
                    tx.exec_driver_sql(statement)
                for name, table in tx.execute(
                    text(
                        "SELECT tgname, relname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal"
                    )
                ).all():
                    tx.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"))

        catalog.write(work)

    return tamper


def on(sqlite: str, postgresql: str) -> Tamper:
    """Do one thing or the other, by the kind of database."""

    def tamper(registry: Registry) -> None:
        catalog = registry.access.catalog
        statement = sqlite if catalog.is_sqlite else postgresql
        catalog.write(lambda tx: [tx.exec_driver_sql(s) for s in statement.split(";") if s.strip()])

    return tamper


def first_object(registry: Registry) -> str:
    """The key of the object of the first component."""
    return str(ask(registry, "SELECT object_key FROM files WHERE object_key IS NOT NULL ORDER BY id")[0])


def lose_object(registry: Registry) -> None:
    registry.access.store.delete(first_object(registry))


def change_object(registry: Registry) -> None:
    store, key = registry.access.store, first_object(registry)
    size = store.size(key) or 0
    store.delete(key)
    store.put(key, b"x" * size)


def cut_object(registry: Registry) -> None:
    store, key = registry.access.store, first_object(registry)
    store.delete(key)
    store.put(key, b"")


def forget_file(registry: Registry) -> None:
    """A row of `files` is gone, and what it had is in the store."""
    run(
        "DELETE FROM manifest_entries WHERE component_name = 'data'",
        "DELETE FROM file_captures",
        "DELETE FROM files WHERE id NOT IN (SELECT file_id FROM manifest_entries) AND id NOT IN (SELECT part_id FROM file_parts)",
    )(registry)


def edit_schemas(registry: Registry) -> None:
    """Every snapshot says that a table has another key, under the digest of that."""

    def work(tx: Transaction) -> None:
        for schema, (_, snapshot) in captures.schemas_by_id(tx, [1, 2, 3]).items():
            edited = {**snapshot, "key": ["x"]}
            values = {"digest": schema_digest(edited), "schema_json": edited}
            tx.execute(update(schemas).where(schemas.c.id == schema).values(**values))

    registry.access.catalog.write(work)


KINDS: dict[str, tuple[str, Tamper]] = {
    # the store
    "an object is missing": ("verify", lose_object),
    "an object has other bytes": ("verify", change_object),
    "an object was truncated": ("verify", cut_object),
    "a row of a file is gone": ("verify", forget_file),
    # rows
    "a component names another file": (
        "verify",
        run("UPDATE manifest_entries SET file_id = (SELECT max(id) FROM files) WHERE component_name = 'data'"),
    ),
    "a component was renamed": (
        "verify",
        run("UPDATE manifest_entries SET component_name = 'x' WHERE component_name = 'data'"),
    ),
    "metadata of a component": (
        "verify",
        run("UPDATE manifest_entries SET metadata = '{}' WHERE component_name = 'data'"),
    ),
    "a version's digest": (
        "verify",
        run("UPDATE dataset_versions SET digest = '" + "0" * 64 + "' WHERE version_number = 1 AND dataset_id = 1"),
    ),
    "a version's number": ("verify", run("UPDATE dataset_versions SET version_number = 9 WHERE version_number = 3")),
    "a part of a table": ("verify", run("DELETE FROM file_parts")),
    "a schema snapshot": (
        "verify",
        on(
            "UPDATE schemas SET schema_json = replace(schema_json, 'int', 'uint')",
            "UPDATE schemas SET schema_json = replace(schema_json::text, 'int', 'uint')::jsonb",
        ),
    ),
    "a statistic": (
        "verify",
        on(
            "UPDATE file_captures SET statistics_json = replace(statistics_json, '\"rows\": 3', '\"rows\": 4')",
            "UPDATE file_captures SET statistics_json = replace(statistics_json::text, '\"rows\": 3', '\"rows\": 4')::jsonb",
        ),
    ),
    "a pointer leads to another dataset": (
        "verify",
        run(
            "UPDATE dataset_pointers SET dataset_version_id = (SELECT max(id) FROM dataset_versions WHERE dataset_id = 2) "
            "WHERE dataset_id = 1 AND pointer_name = 'dev'"
        ),
    ),
    "a counter of numbers": ("verify", run("UPDATE datasets SET last_version_number = 0")),
    "a plain file that is a table": (
        "verify",
        run(
            "UPDATE manifest_entries SET file_id = (SELECT max(id) FROM files WHERE form = 'parts'), format = 'binary' "
            "WHERE component_name = 'data'"
        ),
    ),
    # what the log knows
    "a removed parent": (
        "audit",
        run("UPDATE dataset_versions SET parent_version_id = NULL WHERE version_number = 2 AND dataset_id = 1"),
    ),
    "a moved tag": (
        "audit",
        run(
            "UPDATE dataset_pointers SET dataset_version_id = (SELECT id FROM dataset_versions WHERE version_number = 2 AND "
            "dataset_id = 1) WHERE pointer_name = 'july'"
        ),
    ),
    "a moved branch": (
        "audit",
        run(
            "UPDATE dataset_pointers SET dataset_version_id = (SELECT id FROM dataset_versions WHERE version_number = 1 AND "
            "dataset_id = 1) WHERE pointer_name = 'main' AND dataset_id = 1"
        ),
    ),
    "a new branch": (
        "audit",
        run(
            "INSERT INTO dataset_pointers (dataset_id, pointer_name, dataset_version_id) SELECT dataset_id, 'sly', "
            "dataset_version_id FROM dataset_pointers WHERE pointer_name = 'july'"
        ),
    ),
    "a deleted tag": (
        "audit",
        run("DELETE FROM dataset_pointers WHERE pointer_name = 'july'", "DELETE FROM retired_tags"),
    ),
    "an edited author": (
        "audit",
        run("UPDATE dataset_versions SET uploaded_by = (SELECT id FROM users WHERE username = 'bob')"),
    ),
    "an edited message": ("audit", run("UPDATE dataset_versions SET message = 'never' WHERE message = 'July'")),
    "an edited role": ("audit", run("UPDATE users SET role = 'administrator' WHERE username = 'bob'")),
    "a user who was let in again": ("audit", run("UPDATE users SET disabled_at = NULL")),
    "a new user": ("audit", run("INSERT INTO users (username, kind, role) VALUES ('sly', 'person', 'administrator')")),
    "an edited grant": (
        "audit",
        run("UPDATE permissions SET permission_type = 'admin' WHERE permission_type = 'read'"),
    ),
    "a new grant": (
        "audit",
        run(
            "INSERT INTO permissions (resource_type, resource_id, user_id, permission_type, granted_by) SELECT 'dataset', 2, id, "
            "'admin', id FROM users WHERE username = 'bob'"
        ),
    ),
    "a removed grant": ("audit", run("DELETE FROM permissions WHERE permission_type = 'read'")),
    "a removed grant on a prefix": ("audit", run("DELETE FROM permissions WHERE resource_type = 'prefix'")),
    "a token for more": ("audit", run("UPDATE tokens SET permission_type = 'admin' WHERE name = 'narrow'")),
    "a token for more names": ("audit", run("UPDATE tokens SET prefix = '' WHERE name = 'narrow'")),
    "a token of another user": (
        "audit",
        run("UPDATE tokens SET user_id = (SELECT id FROM users WHERE username = 'alice') WHERE name = 'narrow'"),
    ),
    "a token that is valid again": ("audit", run("UPDATE tokens SET revoked_at = NULL")),
    "a new token": (
        "audit",
        run(
            "INSERT INTO tokens (user_id, name, token_hash, permission_type) SELECT id, 'sly', '"
            + "0" * 64
            + "', 'admin' "
            "FROM users WHERE username = 'bob'"
        ),
    ),
    "a branch that is not protected any longer": (
        "audit",
        run("DELETE FROM protected_branch_users", "DELETE FROM protected_branches WHERE branch_name = 'main'"),
    ),
    "a protection that lets another one through": (
        "audit",
        run("UPDATE protected_branch_users SET user_id = (SELECT id FROM users WHERE username = 'bob')"),
    ),
    "a new protection": (
        "audit",
        run(
            "INSERT INTO protected_branches (resource_type, resource_id, branch_name, created_by) SELECT 'dataset', 2, 'main', "
            "id FROM users WHERE username = 'bob'"
        ),
    ),
    "a removed user": ("audit", run("DELETE FROM users WHERE username = 'idle'")),
    "a renamed dataset": ("audit", run("UPDATE datasets SET name = 'raw/other' WHERE id = 2")),
    "an edited description": ("audit", run("UPDATE datasets SET description = 'never' WHERE id = 2")),
    "a schema snapshot with its digest": ("audit", edit_schemas),
    "a member of a group": (
        "audit",
        run(
            "INSERT INTO group_members (group_id, user_id) SELECT g.id, u.id FROM users g, users u WHERE g.username = 'team' "
            "AND u.username = 'bob'"
        ),
    ),
    "an edited entry": ("audit", run("UPDATE audit_log SET actor = 'bob' WHERE id = 2")),
    "a removed entry": ("audit", run("DELETE FROM audit_log WHERE id = 2")),
    "a removed seal": ("audit", run("DELETE FROM audit_seals WHERE id = (SELECT min(id) FROM audit_seals)")),
    # what protects the rows
    "a dropped trigger": ("db", on("DROP TRIGGER tags_do_not_move", "DROP TRIGGER guard_tags ON dataset_pointers")),
    "a trigger that is off": (
        "db",
        on(
            "DROP TRIGGER audit_log_update",
            "ALTER TABLE audit_log DISABLE TRIGGER audit_log_change",
        ),
    ),
    "a dropped index": ("db", on("DROP INDEX idx_dataset_versions_parent", "DROP INDEX idx_dataset_versions_parent")),
    "a lost reference": (
        "db",
        on(
            "CREATE TABLE copy AS SELECT * FROM version_parents;DROP TABLE version_parents;"
            "ALTER TABLE copy RENAME TO version_parents",
            "ALTER TABLE version_parents DROP CONSTRAINT fk_version_parents_parent_id",
        ),
    ),
    "a lost unique key": (
        "db",
        on(
            "DROP INDEX idx_files_content_hash",
            "ALTER TABLE dataset_versions DROP CONSTRAINT uq_dataset_versions_dataset_id_version_number",
        ),
    ),
    "a lost view": ("db", on("DROP VIEW file_info", "DROP VIEW file_info")),
}


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A registry with something of everything that can be tampered with, sealed twice: made once, and copied."""
    folder = tmp_path_factory.mktemp("filled")
    url = _catalog(request, request.param, folder)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as opened:
        patch.setenv("DATASET_REGISTRY_INLINE_BYTES", "0")  # objects can be tampered with
        owner = opened.enter_context(Registry.open(catalog=url, store=str(folder / "store")))
        flights = owner.create_dataset("raw/flights")
        flights.commit({"data": b"one", "t": pa.table({"x": [1, 2, 3]})}, message="July")
        flights.commit({"data": b"two"})
        flights.commit({"csv": b"id,n\n1,5\n2,6\n"})
        flights.create_tag("july", "v1")
        flights.create_branch("dev", "v2")
        owner.create_dataset("other").commit({"data": b"other"})
        for name in ("alice", "bob", "carol", "idle"):
            owner.create_user(name)
        owner.dataset("other").update(description="the others")
        owner.create_token("bob", name="narrow", permission="read", prefix="raw/")
        owner.revoke_token(owner.create_token("bob", name="old").token.id)
        owner.protect("raw/flights", "main", allow=["alice"])
        owner.protect("raw/", "release", allow=[])
        owner.update_user("carol", disabled=True)
        owner.create_user("team", kind="group", members=["alice"])
        owner.grant("alice", "read", "raw/flights")
        owner.grant("team", "write", "raw/")
        owner.seal_audit()
        flights.commit({"data": b"three"})
        owner.seal_audit()
    return url, folder


@pytest.fixture
def full(filled: tuple[str, Path], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A copy of that registry."""
    url, folder = filled
    shutil.copytree(folder / "store", tmp_path / "store")
    if url.startswith("sqlite"):
        catalog = f"sqlite:///{shutil.copy(folder / 'catalog.sqlite', tmp_path)}"
    else:
        catalog = _database(request, f"tampered_{next(_numbers)}", url.rpartition("/")[2])
    with Registry.open(catalog=catalog, store=str(tmp_path / "store")) as owner:
        yield owner


def found_by(registry: Registry) -> dict[str, list[str]]:
    """What each check says."""
    found: dict[str, list[str]] = {"verify": [], "audit": [], "db": []}
    with suppress(RegistryError):
        found["verify"] = [f.what for f in registry.verify(deep=True).findings]
    with suppress(RegistryError):
        found["audit"] = list(registry.check_audit().problems)
    try:
        migrate.check(registry.access.catalog)
    except CatalogOutdated as error:
        found["db"] = list(error.fields.get("differences", [str(error)]))  # type: ignore[call-overload]
    return found


def test_a_registry_that_nobody_tampered_with_is_sound(full: Registry) -> None:
    assert found_by(full) == {"verify": [], "audit": [], "db": []}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tampering_is_found(full: Registry, kind: str) -> None:
    where, tamper = KINDS[kind]
    tamper(full)
    found = found_by(full)
    print(kind, {name: says[:1] for name, says in found.items() if says})
    assert found[where], found


def test_the_guards_of_a_new_catalog_are_those_that_are_looked_for(registry: Registry) -> None:
    with registry.access.catalog.read() as tx:
        assert structure.guards(tx) == structure.GUARDS[tx.dialect.name]
        assert list(structure.problems(tx)) == []


def test_all_of_them_are_thirty_or_more() -> None:
    assert len(KINDS) >= 30
