"""Secrets are planted in every place that takes one, and looked for in everything that leaves: none is found."""

import dataclasses
import logging
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import dagster as dg
import httpx
import pyarrow as pa
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from dagster._utils.error import serializable_error_info_from_exc_info
from sqlalchemy import text

from dataset_registry import Policy, Registry, Rule
from dataset_registry.catalog import Catalog
from dataset_registry.catalog.tables import metadata as tables
from dataset_registry.dagster_io import DatasetRegistryIOManager, DatasetRegistryResource, describe_assets
from dataset_registry.errors import RegistryError
from dataset_registry.model.actors import Actor
from dataset_registry.remote.client import Client
from dataset_registry.server.settings import Settings
from dataset_registry.store import open_store
from tests import serving

OPTION, SESSION, ENVIRONMENT = "planted-libpq-option", "planted/session+token", "planted-environment"


@dataclass
class Searched:
    """Everything that left, by the place where it did, and the secrets that must not be in it."""

    secrets: dict[str, str]
    places: int = 0
    found: list[str] = field(default_factory=list)

    def look(self, place: str, value: object) -> None:
        """Look for each secret, as it is meant and as it is written in an address."""
        self.places += 1
        content = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
        for name, secret in self.secrets.items():
            for form in {secret, quote(secret, safe=""), repr(secret)[1:-1]}:
                if form.encode() in content:
                    at = content.index(form.encode())
                    self.found.append(f"{name} in {place}: {content[max(0, at - 80) : at + 40]!r}")

    def show(self, place: str, value: object) -> None:
        """Look at how an object shows itself."""
        for how in (repr, str):
            self.look(f"{how.__name__} of {place}", how(value))

    def fail(self, place: str, work: Callable[[], object]) -> None:
        """Look at an error: its text and values, the traceback, and what Dagster stores of it."""
        with pytest.raises(RegistryError) as found:
            work()
        self.show(place, found.value)
        self.look(f"fields of {place}", found.value.fields)
        self.look(f"traceback of {place}", "".join(traceback.format_exception(found.value)))
        account = serializable_error_info_from_exc_info((found.type, found.value, found.tb))
        self.look(f"Dagster's account of {place}", serialize_value(account))


@dataclass(frozen=True)
class Planted:
    """A registry on PostgreSQL and S3 whose addresses are full of secrets."""

    catalog: str
    store: str
    password: str


@pytest.fixture
def planted(postgresql_catalog: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """The addresses: the password in the query and in the environment, an option of libpq, keys of S3."""
    parts = urlsplit(postgresql_catalog)
    assert parts.password is not None
    monkeypatch.setenv("PGPASSWORD", parts.password)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ENVIRONMENT)
    catalog = urlunsplit(parts) + f"?password={parts.password}&options=-cplanted.option%3D{OPTION}"
    return Planted(catalog, s3_url, parts.password)


@pytest.fixture
def searched(planted: Planted) -> Iterator[Searched]:
    """The search. After the test the figures are printed, and the test fails for any secret that was found."""
    secrets = {"password": planted.password, "libpq option": OPTION, "S3 key": "testkey", "S3 secret": "testsecret"}
    secrets |= {"environment": ENVIRONMENT, "session token": SESSION}
    search = Searched(secrets)
    yield search
    print(f"places searched: {search.places}, secrets found: {len(search.found)}")
    assert search.places > 0
    assert search.found == []


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def elsewhere(url: str, **parts: Any) -> str:
    """An address with another user, host or port."""
    found = urlsplit(url)
    user = parts.get("user", found.username)
    netloc = f"{user}:{parts.get('password', found.password)}@{parts.get('host', found.hostname)}:{parts.get('port', found.port)}"
    return urlunsplit(found._replace(netloc=netloc))


def filled(registry: Registry) -> Registry:
    """Something of everything."""
    dataset = registry.create_dataset("raw/d")
    dataset.commit({"data": pa.table({"a": [1]}), "text": b"a\n1\n"}, message="first")
    dataset.create_tag("july", "v1")
    registry.create_user("bob")
    registry.grant("bob", "read", "raw/")
    registry.protect("raw/", "main")
    return registry


def test_no_object_shows_a_secret(planted: Planted, searched: Searched, tmp_path: Path) -> None:
    with Registry.open(catalog=planted.catalog, store=planted.store) as registry:
        filled(registry)
        with registry.access.catalog.read() as tx:
            assert tx.execute(text("SHOW planted.option")).scalar() == OPTION, "the option reaches the database"
            searched.show("connection", tx)
        token = registry.create_token("bob")
        searched.secrets["token"] = token.secret
        dataset, access = registry.dataset("raw/d"), registry.access
        with dataset.draft() as draft:
            draft.add("more", b"1")
            searched.show("draft", draft)
        version = dataset.version()
        shown: dict[str, object] = {
            "registry": registry,
            "location": registry.location,
            "dataset": dataset,
            "version": version,
            "lazy table": version.lazy(),
            "scan": version.scan(),
            "components": version.components,
            "schema": version.schema,
            "commit": draft.result,
            "token": token,
            "tokens": registry.tokens("bob"),
            "users": registry.users(),
            "grants": registry.grants(),
            "protections": registry.protections(),
            "files": list(registry.files()),
            "audit": registry.audit(),
            "expiry plan": registry.expire(Policy((Rule(last=1),)), dry_run=True),
            "collection plan": registry.collect(dry_run=True),
            "verification": registry.verify(),
            "access": access,
            "actor": access.actor,
            "catalog": access.catalog,
            "catalog's address": access.catalog.address,
            "catalog's URL": repr(access.catalog.url),
            "reader": access.catalog.reader,
            "writer": access.catalog.writer,
            "pool": access.catalog.writer.pool.status(),
            "store": access.store,
            "store's location": access.store.location,
            "scratch folder": access.store.scratch,
            "local copies": access.copies,
            "settings": Settings(catalog=planted.catalog, store=planted.store),
            "client": Client("http://localhost", token.secret),
            "actor of a token": Actor("bob", token=token.token),
        }
        for place, value in shown.items():
            searched.show(place, value)
        for place in ("registry", "catalog", "store", "token"):
            for name, value in _attributes(shown[place]).items():
                if not name.startswith("_") and callable(getattr(value, "__repr__", None)) and name != "secret":
                    searched.show(f"{name} of the {place}", value)
        again: Catalog = pickle.loads(pickle.dumps(access.catalog))
        assert again.revision() == access.catalog.revision(), "what travels to another process still opens"
        again.close()


def _attributes(value: object) -> Mapping[str, object]:
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    hidden = ("url",)  # SQLAlchemy's own object, looked at above: its password is for who asks for it
    return {name: found for name, found in vars(value).items() if name not in hidden}


def test_no_error_shows_a_secret(
    planted: Planted, searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "planted-wrong-password"
    searched.secrets |= {"wrong password": wrong, "user": "planted-s3-user"}
    catalog, store = planted.catalog, planted.store

    def opening(catalog: str = catalog, store: str = store, **options: Any) -> Callable[[], object]:
        def work() -> None:
            with Registry.open(catalog=catalog, store=store, **options) as registry:
                registry.create_dataset("x").commit({"data": b"1"})

        return work

    plain = catalog.partition("?")[0]
    folder = str(tmp_path / "store")
    catalogs = {
        "wrong password": elsewhere(plain, password=wrong) + f"?password={wrong}",
        "closed port": elsewhere(catalog, port=closed_port()),
        "unknown host": elsewhere(catalog, host="nowhere.invalid"),
        "unknown database": catalog.replace("/registry_", "/none_"),
        "unknown scheme": "mysql://u:planted-wrong-password@host/db?password=" + wrong,
        "no URL": f"planted password={wrong}",
        "bad port": f"postgresql://u:{wrong}@host:port/db",
        "unknown parameter": f"{plain}?passwd={wrong}",
        "bad value of a parameter": f"{plain}?sslmode={wrong}"
        if False
        else f"{plain}?sslpassword={wrong}&sslmode=maybe",
        "bad option": f"{plain}?options=-cstatement_timeout%3D{wrong}",
        "unknown option": f"{plain}?options=-c{wrong}",
        "unescaped password": f"postgresql://u:a/b?{wrong}@127.0.0.1:{closed_port()}/db",
        "parameter of SQLite": f"sqlite:///{tmp_path}/c.sqlite?password={wrong}",
        "no file": f"sqlite://?password={wrong}",
    }
    for place, url in catalogs.items():
        searched.fail(f"catalog, {place}", opening(catalog=url, store=folder))
        if "://" in url:
            searched.fail(f"catalog as a folder, {place}", partial(Registry.open, url))
    bucket, _, options = store.partition("?")
    keys = options.replace("testsecret", wrong)
    stores = {
        "wrong keys": f"{bucket}?{keys}",
        "closed port": f"s3://blobs/x?endpoint=http://u:{wrong}@127.0.0.1:{closed_port()}&{options.partition('&')[2]}",
        "unknown scheme": f"s4://planted-s3-user:{wrong}@bucket?secret={wrong}",
        "user": f"s3://planted-s3-user:{wrong}@bucket/prefix",
        "unescaped user": f"s3://planted-s3-user:a/b+{wrong}@bucket/prefix",
        "user without a password": "s3://planted-s3-user@bucket/prefix",
        "no bucket": f"s3:///prefix?secret_access_key={wrong}",
        "unknown option": f"{bucket}?{options}&{wrong}={wrong}",
        "bad value": f"{bucket}?{options}&aws_session_token={quote(SESSION)}&checksum_algorithm=none",
        "bad number": f"{bucket}?{options}&cache_bytes=many",
        "bad address": f"s3://[bad/prefix?secret_access_key={wrong}",
    }
    monkeypatch.setattr("dataset_registry.store.objects._ATTEMPTS", 1)
    sqlite = 0
    for place, location in stores.items():
        if place in ("closed port", "wrong keys"):  # obstore tries again for two minutes
            found = open_store(location)
            searched.show(f"store, {place}", found)
            searched.look(f"location of the store, {place}", found.location)
            text_of = f"error at {location} with {keys}"
            searched.look(f"text of obstore, {place}", found._hide(text_of))  # type: ignore[union-attr]
            continue
        sqlite += 1
        searched.fail(f"store, {place}", opening(catalog=f"sqlite:///{tmp_path}/c{sqlite}.sqlite", store=location))
    servers = {
        "user": f"https://planted-s3-user:{wrong}@registry.example.com",
        "token as a user": f"https://{wrong}@registry.example.com",
        "token in the query": f"https://registry.example.com?token={wrong}",
        "token in the fragment": f"https://registry.example.com#{wrong}",
        "closed port": f"http://127.0.0.1:{closed_port()}",
        "no host": f"https://:{wrong}@",
    }
    monkeypatch.setattr("dataset_registry.remote.client.sleep", lambda _: None)
    for place, url in servers.items():
        searched.fail(f"server, {place}", partial(Registry.open, url, token=wrong))
        searched.fail(f"server without a token, {place}", partial(Registry.open, url))
    searched.fail("token with a line break", lambda: Registry.open("https://registry.example.com", token=wrong + "\n"))


def test_neither_the_log_nor_an_answer_of_a_server_shows_a_secret(
    planted: Planted, searched: Searched, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving.in_thread(catalog=planted.catalog, store=planted.store) as served:
        filled(served.owner)
        with served.http() as http:
            searched.secrets["token"] = http.headers["authorization"].removeprefix("Bearer ")
            for path in ("/health", "/ready", "/metrics", "/openapi.json", "/docs"):
                searched.look(path, httpx.get(served.url + path).text)
            for path in ("whoami", "datasets", "users", "tokens", "grants", "audit", "files", "branches", "datasets/1"):
                searched.look(path, http.get(path).text)
            searched.look("audit/export", http.get("audit/export").text)
            for path in ("datasets/99", "nothing", "files/1/content?x=1"):
                searched.look(f"error at {path}", http.get(path).text)
            answer = http.post("tokens", json={}, headers={"Idempotency-Key": "k"})
            searched.secrets["new token"] = answer.json()["secret"]
        with served.registry() as remote:
            searched.show("remote registry", remote)
            searched.show("remote dataset", remote.dataset("raw/d"))
            searched.show("remote client", remote._client)  # type: ignore[attr-defined]
            searched.show("HTTP client", remote._client._http)  # type: ignore[attr-defined]
    printed = capfd.readouterr()
    assert '"event": "ready"' in printed.err
    searched.look("standard error of the server", printed.err)
    searched.look("standard output of the server", printed.out)
    for record in caplog.records:
        searched.look(f"log of {record.name}", record.getMessage())
    searched.look("log", caplog.text)


def test_neither_the_audit_log_nor_any_row_of_a_catalog_has_a_secret(
    planted: Planted, searched: Searched, tmp_path: Path
) -> None:
    with (
        Registry.open(catalog=planted.catalog, store=planted.store) as source,
        Registry.open(tmp_path / "copy") as copy,
    ):
        filled(source).copy_to(copy)
        for name, registry in (("source", source), ("copy", copy)):
            for entry in registry.audit(limit=1000):
                searched.look(f"audit entry {entry.action} of the {name}", entry)
            for line, _ in registry.export_audit():
                searched.look(f"exported audit entry of the {name}", line)
            with registry.access.catalog.read() as tx:
                for table in tables.sorted_tables:
                    searched.look(f"table {table.name} of the {name}", tx.execute(table.select()).all())
        assert any("origin" in entry.details for entry in copy.audit())
    for path in tmp_path.rglob("*"):
        searched.look("path", path)
        if path.is_file():
            searched.look(f"file {path.name}", path.read_bytes())


@dg.asset
def numbers() -> pa.Table:
    return pa.table({"n": [1, 2]})


@dg.asset
def doubled(context: dg.AssetExecutionContext, numbers: pa.Table) -> pa.Table:
    context.log.info(f"resources: {context.resources!r}")
    return numbers


@dg.asset
def fails(numbers: pa.Table) -> pa.Table:
    raise ValueError("on purpose")


@pytest.mark.parametrize("given", ["text", "environment"])
@pytest.mark.parametrize("kind", ["embedded", "remote"])
def test_nothing_that_dagster_stores_or_shows_has_a_secret(
    planted: Planted,
    searched: Searched,
    given: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving.in_thread(catalog=planted.catalog, store=planted.store) as served:
        served.owner.create_user("nightly", role="administrator")
        values = {"catalog": planted.catalog, "store": planted.store}
        if kind == "remote":
            values = {"path": served.url, "token": served.token("nightly")}
            searched.secrets["token"] = values["token"]
        options: dict[str, Any] = dict(values)
        if given == "environment":
            for name, value in values.items():
                monkeypatch.setenv(f"PLANTED_{name.upper()}", value)
                options[name] = dg.EnvVar(f"PLANTED_{name.upper()}")
        resource = DatasetRegistryResource(**options)
        manager = DatasetRegistryIOManager(registry=resource)
        resources = {"registry": resource, "io_manager": manager}
        assets = describe_assets([numbers, doubled, fails], registry=resource)
        definitions = dg.Definitions(assets=assets, resources=resources, jobs=[dg.define_asset_job("job", assets[:2])])
        repository = definitions.get_repository_def()
        for name, value in {"resource": resource, "IO manager": manager, "definitions": definitions}.items():
            searched.show(name, value)
        searched.look("repository snapshot", serialize_value(RepositorySnap.from_def(repository)))
        for job in repository.get_all_jobs():
            searched.look(f"snapshot of {job.name}", serialize_value(job.get_job_snapshot()))
        for asset in assets:
            searched.look("metadata of an asset", dict(asset.metadata_by_key))
        storage = tmp_path / "dagster"
        storage.mkdir()
        with dg.DagsterInstance.local_temp(str(storage)) as instance:
            runs = [
                definitions.resolve_job_def("job").execute_in_process(instance=instance),
                dg.materialize(assets, resources=resources, instance=instance, raise_on_error=False),
            ]
            assert [run.success for run in runs] == [True, False]
            for run in runs:
                for record in instance.all_logs(run.run_id):
                    searched.look(f"event {record.dagster_event_type}", serialize_value(record))
                searched.look("run", serialize_value(instance.get_run_by_id(run.run_id)))
            broken = DatasetRegistryResource(
                **(
                    dict(options) | {"actor": "nobody"}
                    if kind == "embedded"
                    else {"path": served.url, "token": "dr_planted-invalid-token"}
                )
            )
            searched.secrets["invalid token"] = "dr_planted-invalid-token"
            failed = dg.materialize(
                [numbers],
                resources={"io_manager": DatasetRegistryIOManager(registry=broken)},
                instance=instance,
                raise_on_error=False,
            )
            assert not failed.success
            for record in instance.all_logs(failed.run_id):
                searched.look(f"event {record.dagster_event_type} of a failed run", serialize_value(record))
        for path in storage.rglob("*"):
            if path.is_file():
                searched.look(f"file {path.name} of the instance", path.read_bytes())
        resource.registry.close()
    printed = capfd.readouterr()
    searched.look("standard error", printed.err)
    searched.look("standard output", printed.out)
    searched.look("log", caplog.text)


def test_the_command_line_prints_no_secret(planted: Planted, searched: Searched, tmp_path: Path, quick: Path) -> None:
    token = ""
    with Registry.open(catalog=planted.catalog, store=planted.store) as registry:
        filled(registry)
        token = registry.create_token("bob").secret
    searched.secrets["token"] = token
    (tmp_path / "x.csv").write_text("a\n1\n")
    named = {"DATASET_REGISTRY_CATALOG": planted.catalog, "DATASET_REGISTRY_STORE": planted.store}
    wrong = {**named, "DATASET_REGISTRY_CATALOG": elsewhere(planted.catalog, port=closed_port())}
    refused = {**named, "DATASET_REGISTRY_STORE": "s3://planted-key:planted-key-secret@bucket"}
    searched.secrets |= {"key": "planted-key", "wrong password": "planted-wrong"}
    invalid = {
        **named,
        "DATASET_REGISTRY_CATALOG": elsewhere(planted.catalog.partition("?")[0], password="planted-wrong"),
    }
    invalid["PGPASSWORD"] = "planted-wrong"
    unreachable = {"DATASET_REGISTRY": f"http://127.0.0.1:{closed_port()}", "DATASET_REGISTRY_TOKEN": token}
    crash = "import dataset_registry.registry as r; r.Registry.datasets = lambda self, **_: {}[self.location]; "
    ends = "import dataset_registry.catalog.engine as e; e.HEAD = '9999'; "
    hasty = "import dataset_registry.remote.client as c; c.sleep = lambda _: None; "

    def command(environment: dict[str, str], *arguments: str, before: str = "") -> None:
        program = [sys.executable, "-c", f"{before}from dataset_registry.cli import main; main()"]
        done = subprocess.run(
            [*(program if before else [quick / "dataset-registry"]), *arguments],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=120,
        )
        searched.look(f"output of {arguments}", done.stdout)
        searched.look(f"errors of {arguments}", done.stderr)
        assert done.stdout + done.stderr
        assert b"forked from is gone" not in done.stderr

    for arguments in (
        ["status"],
        ["status", "--json"],
        ["put", "raw/d", "x.csv", "--json"],
        ["show", "raw/d", "--json"],
        ["audit", "list", "--json"],
        ["audit", "export"],
        ["verify", "--json"],
        ["copy", "--to", "copied", "--create", "--json"],
        ["db", "current"],
        ["db", "check"],
        ["init", "--catalog", planted.catalog, "--store", planted.store],
        ["status", "--help"],
        ["status", "--nothing"],
        ["serve", "--port", "nothing"],
        ["token", "list", "--json"],
    ):
        command(named, *arguments)
    command(named, "datasets", before=crash)
    command(named, "status", before=ends)
    command(unreachable, "status", before=hasty)
    command(unreachable, "status", "--json", before=hasty)
    for environment in (wrong, refused, invalid):
        for arguments in (
            ["status"],
            ["status", "--json"],
            ["db", "current"],
            ["serve", "--port", "1"],
            ["put", "d", "x.csv"],
        ):
            command(environment, *arguments)
