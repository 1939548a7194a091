"""A catalog and its store know each other: the wrong pair is refused when it is opened, before anything is written."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from shutil import copy, copytree

import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.catalog import Catalog, migrate
from dataset_registry.embedded import rebound
from dataset_registry.errors import StoreMismatch
from dataset_registry.store import FolderStore, MemoryStore, ObjectStore, Store
from tests import fresh

pytestmark = pytest.mark.objects


@pytest.fixture(params=["folder", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """The same empty store, opened again each time."""
    if request.param == "s3":
        location = request.getfixturevalue("s3_url")
        return lambda: ObjectStore(location)
    if request.param == "memory":
        kept = MemoryStore()
        return lambda: kept
    return lambda: FolderStore(tmp_path / "bytes")


def test_a_store_takes_an_id_once(store: Callable[[], Store]) -> None:
    assert store().identity() is None
    assert store().claim("first") == "first"
    assert store().claim("second") == "first"
    assert store().identity() == "first"


def test_of_several_at_once_one_is_first(store: Callable[[], Store]) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda n: store().claim(f"id-{n}"), range(8)))
    assert answers == {store().identity()}


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    with Registry.open(fresh.folder(tmp_path / "mine")) as registry:
        registry.create_dataset("flights").commit({"data": b"1"})
    return tmp_path / "mine"


def test_the_store_of_another_catalog_is_refused_with_both_ids(mine: Path, tmp_path: Path) -> None:
    with Registry.open(fresh.folder(tmp_path / "other")) as registry:
        registry.create_dataset("x")
    ids = [FolderStore(folder).identity() for folder in (mine, tmp_path / "other")]
    with pytest.raises(StoreMismatch) as caught:
        Registry.open(catalog=url(mine / "catalog.sqlite"), store=str(tmp_path / "other"))
    assert all(str(found) in str(caught.value) for found in ids)
    assert "db bind" in str(caught.value)


def test_a_new_catalog_does_not_take_the_store_of_another(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatch, match="not known"):
        Registry.open(catalog=url(tmp_path / "new.sqlite"), store=str(mine))
    with Registry.open(mine) as registry:
        assert registry.verify(deep=True).clean


def test_an_empty_store_in_the_place_of_the_own_one_is_refused(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreMismatch, match="without an id"):
        Registry.open(catalog=url(mine / "catalog.sqlite"), store=str(tmp_path / "typo"))


def test_an_operator_says_that_they_belong_together(mine: Path, tmp_path: Path) -> None:
    copytree(mine / "objects", tmp_path / "moved" / "objects")
    catalog, moved = url(mine / "catalog.sqlite"), str(tmp_path / "moved")
    assert rebound(catalog, moved) == FolderStore(moved).identity()
    with Registry.open(catalog=catalog, store=moved) as registry:
        assert registry.verify(deep=True).clean
        assert registry.audit(action="store.bind")[0].after == FolderStore(moved).identity()


def test_a_backup_of_both_opens(mine: Path, tmp_path: Path) -> None:
    copytree(mine, tmp_path / "backup")
    with Registry.open(tmp_path / "backup") as registry:
        assert registry.version("flights").open("data").read() == b"1"


def test_a_catalog_of_before_is_bound_when_it_is_opened(mine: Path, tmp_path: Path) -> None:
    with Registry.open(mine) as registry:
        registry.access.catalog.write(lambda tx: tx.execute(text("DELETE FROM registry_settings")))
    (mine / "registry-id").unlink()
    copy(mine / "catalog.sqlite", tmp_path / "second.sqlite")
    Registry.open(mine).close()
    Registry.open(mine).close()
    second = {"catalog": url(tmp_path / "second.sqlite"), "store": str(mine)}
    with pytest.raises(
        StoreMismatch, match="Another catalog may have files in it"
    ):  # a backup of before, or a neighbour
        Registry.open(**second)
    rebound(**second)
    Registry.open(**second).close()


def test_of_two_older_catalogs_that_share_a_store_the_second_is_refused(mine: Path, tmp_path: Path) -> None:
    neighbour = {"catalog": url(tmp_path / "neighbour.sqlite"), "store": str(mine)}
    forget = text("DELETE FROM registry_settings")
    with Registry.open(catalog=neighbour["catalog"], store=str(tmp_path / "other")) as registry:
        registry.create_dataset("theirs").commit({"data": b"theirs"})
        registry.access.catalog.write(lambda tx: tx.execute(forget))
    copytree(tmp_path / "other" / "objects", mine / "objects", dirs_exist_ok=True)
    with Registry.open(mine) as registry:
        registry.access.catalog.write(lambda tx: tx.execute(forget))
    (mine / "registry-id").unlink()
    Registry.open(mine).close()
    with pytest.raises(StoreMismatch, match="each would delete the other's"):
        Registry.open(**neighbour)


def test_a_store_that_was_restored_without_its_id_is_recognised_by_the_files(mine: Path) -> None:
    identity = FolderStore(mine).identity()
    (mine / "registry-id").unlink()
    Registry.open(mine).close()
    assert FolderStore(mine).identity() == identity


def test_a_catalog_that_went_down_a_revision_and_up_again_knows_its_store(mine: Path) -> None:
    catalog = Catalog(url(mine / "catalog.sqlite"))
    migrate.downgrade(catalog, "0014")
    catalog.close()
    with Registry.open(mine) as registry:
        assert registry.version("flights").open("data").read() == b"1"


class Silent(FolderStore):
    """A store that does not answer."""

    def identity(self) -> str | None:
        from dataset_registry.errors import RetryLater

        raise RetryLater("The store does not answer.")


def test_a_store_that_does_not_answer_is_let_pass(mine: Path) -> None:
    with Registry.open(catalog=url(mine / "catalog.sqlite"), store=Silent(mine)) as registry:
        assert [v.number for v in registry.dataset("flights").log()] == [1]


def test_every_pair_of_several_is_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        Registry.open(fresh.folder(folder)).close()
    for catalog in folders:
        for store in folders:
            with nullcontext() if catalog == store else pytest.raises(StoreMismatch):
                Registry.open(catalog=url(catalog / "catalog.sqlite"), store=str(store)).close()
