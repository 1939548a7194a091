"""Names, numbers and moments that our rules refuse and existing catalogs have: listed, addressed, renamed, never mixed up."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.cli import main
from dataset_registry.cli.target import CATALOG_VARIABLE, STORE_VARIABLE
from dataset_registry.errors import InvalidName, InvalidRef
from tests import serving
from tests.migrations import support

NAMES = [
    *("my data set", "/leading", "raw//x", "a@b", "raw/ok@main", "trailing ", "", "-dash", "v1", "*", "raw/", ".."),
    *("a\nb", 'quo"ted', "back\\slash", "\u00e9", "e\u0301", "#1", "A" * 200),
]
NUMBERS = (-7, 0, 3)
MOMENTS = {
    "sqlite": ["yesterday", "0000-00-00 00:00:00", "", "12345", "2020-13-45", "2020-02-30 25:00:00"],
    "postgresql": ["infinity", "-infinity", "0044-03-15 00:00:00 BC", "20000-01-01"],
}


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.fixture
def odd(catalog: Catalog, tmp_path: Path) -> Iterator[Registry]:
    """An existing catalog with a dataset of each name, numbers below 1, and moments that are none."""
    support.create_baseline(catalog)
    support.insert(catalog, "users", username="Bob Smith (ext.)")
    ok = support.add_file(catalog, support.File(b"ok", "binary"))
    support.add_dataset(catalog, "raw/ok", {1: ok})
    for name in NAMES:
        file = support.add_file(catalog, support.File(name.encode(), "binary"))
        support.add_dataset(catalog, name, dict.fromkeys(NUMBERS, file), user=1)
    for number, moment in enumerate(MOMENTS["sqlite" if catalog.is_sqlite else "postgresql"]):
        dataset = support.add_dataset(catalog, f"moment{number}", {1: ok})
        for table, column, key in (
            ("dataset_versions", "ingestion_timestamp", "dataset_id"),
            ("datasets", "created_at", "id"),
        ):
            support.execute(catalog, f"UPDATE {table} SET {column} = '{moment}' WHERE {key} = {dataset}")
    support.execute(catalog, "UPDATE users SET created_at = (SELECT max(created_at) FROM datasets)")
    migrate.upgrade(catalog)
    url = catalog.url.render_as_string(hide_password=False)
    with Registry.open(catalog=url, store=str(tmp_path / "store")) as registry:
        yield registry


def test_every_one_of_them_is_listed_and_addressed(odd: Registry) -> None:
    assert set(NAMES) <= {dataset.name for dataset in odd.datasets()}
    for name in NAMES:
        assert [v.number for v in odd.dataset(name).log()] == [3, 0, -7]
        for ref, number in (("main", 3), ("v0", 0), ("v-7", -7), ("main~1", 0)):
            version = odd.version(f"{quoted(name)}@{ref}")
            assert (version.dataset, version.number) == (name, number)
            assert support.content(version) == name.encode()


def test_an_address_that_could_mean_two_datasets_means_neither(odd: Registry) -> None:
    with pytest.raises(InvalidRef, match="is the name of a dataset"):
        odd.version("raw/ok@main")
    assert odd.version('"raw/ok"@main').dataset == "raw/ok"
    assert odd.version('"raw/ok@main"').dataset == "raw/ok@main"
    with pytest.raises(InvalidName, match="quoted name"):
        odd.version('"raw/ok')


def test_a_branch_comes_before_a_number_below_one(odd: Registry) -> None:
    odd.adopt()
    odd.dataset("*").create_branch("v0", "v3")
    assert odd.version('"*"@v0').number == 3


def test_they_are_adopted_renamed_committed_to_and_deleted(odd: Registry) -> None:
    assert odd.adopt().failed == {}
    for number, name in enumerate(NAMES):
        dataset = odd.dataset(name)
        assert dataset.commit({"data": b"new"}).number == 4
        if number % 2:
            dataset.rename(f"fine/{number}")
            assert odd.version(f"fine/{number}").number == 4
        else:
            dataset.delete()
    assert odd.verify(deep=True).findings == ()


def test_moments_that_are_none_fail_no_listing_and_stay_in_their_rows(odd: Registry, tmp_path: Path) -> None:
    catalog = odd.access.catalog
    moments = MOMENTS["sqlite" if catalog.is_sqlite else "postgresql"]
    for number in range(len(moments)):
        dataset = odd.dataset(f"moment{number}")
        assert [v.created_at.year in (1, 9999) for v in dataset.log()] == [True]
    assert len(odd.datasets()) == len(NAMES) + len(moments) + 1
    odd.adopt()
    with Registry.open(tmp_path / "copy") as copy:
        assert odd.copy_to(copy).notes == []
    kept = support.query(
        catalog, "SELECT CAST(created_at AS VARCHAR) FROM datasets WHERE name LIKE 'moment%' ORDER BY id"
    )
    assert [row[0].replace(" 00:00:00", "") for row in kept] == [moment.replace(" 00:00:00", "") for moment in moments]


def test_a_user_of_an_existing_catalog_becomes_one_of_ours(odd: Registry) -> None:
    odd.create_user("root", role="administrator")
    with pytest.raises(InvalidName):
        odd.create_user("Eve Smith (ext.)")
    assert odd.create_user("Bob Smith (ext.)").name == "Bob Smith (ext.)"
    odd.grant("Bob Smith (ext.)", "read", "raw/ok")
    assert odd.update_user("Bob Smith (ext.)", disabled=True).disabled_at is not None
    assert odd.version('"raw/ok"').record.created_by is None
    assert odd.version('"*"').record.created_by == "Bob Smith (ext.)"


def test_they_are_reached_over_rest(odd: Registry) -> None:
    access = odd.access
    catalog = access.catalog.url.render_as_string(hide_password=False)
    with serving.in_thread(catalog=catalog, store=access.store.location) as served, served.http() as http:
        listed = http.get("datasets", params={"limit": 1000}).json()["items"]
        assert set(NAMES) <= {item["name"] for item in listed}
        for name in NAMES:
            (found,) = http.get("datasets", params={"name": name}).json()["items"]
            log = http.get(f"datasets/{found['id']}/log").json()["items"]
            assert [v["version_number"] for v in log] == [3, 0, -7]
        remote = served.registry()
        assert remote.version('"my data set"@v0').number == 0
        assert http.patch(f"datasets/{found['id']}", json={"name": "fine"}).status_code == 200


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
def test_they_are_reached_from_the_shell(
    odd: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CATALOG_VARIABLE, odd.access.catalog.url.render_as_string())
    monkeypatch.setenv(STORE_VARIABLE, odd.access.store.location)

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dataset-registry", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert not ended.value.code, printed
        return printed.out

    assert "my data set" in command("datasets")
    for name in NAMES:
        assert "v0" in command("log", quoted(name))
        assert command("show", f"{quoted(name)}@v0")
    command("adopt")
    command("dataset", "rename", "my data set", "fine")
    assert "v3" in command("log", "fine")
