"""A table and a file never share a hash: the list of a table's parts, committed as a file, is a file and no more."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from sqlalchemy import text

from dataset_registry import Registry
from dataset_registry.content.stored import spooled
from dataset_registry.errors import CorruptionError, InputError, NotFound
from dataset_registry.model.parts import Part, legacy_parts_digest, parts_digest
from tests.permissions.support import acting

SECRET = pa.table({"salary": [100, 200, 300]})
PACK = b"dataset_registry pack/1 00000000000000000000000000000000\n"


@pytest.fixture
def legacy() -> Iterator[None]:
    """A registry of release 0.1: tables are named by the SHA-256 of their list, and files are not looked at."""
    with (
        patch("dataset_registry.content.stage.parts_digest", legacy_parts_digest),
        patch("dataset_registry.content.stage.has_internal_heading", return_value=False),
    ):
        yield


def listing(registry: Registry, name: str = "secret") -> bytes:
    """The text that the hash of a table was over in release 0.1."""
    (component,) = registry.dataset(name).version("main").components
    with registry.access.catalog.read() as tx:
        parts = tx.execute(
            text(
                "SELECT p.content_hash, p.file_size FROM file_parts JOIN files p ON p.id = part_id "
                "WHERE file_id = :id ORDER BY position"
            ),
            {"id": component.file_id},
        ).all()
    return b"dataset_registry parts/1\n" + b"".join(f"{h} {size}\n".encode() for h, size in parts)


def forge(registry: Registry, name: str, file_of: str, format: str) -> None:
    """Let the component of one dataset name the file of another, as a forged hash did."""
    (source,) = registry.dataset(file_of).version("main").components
    (target,) = registry.dataset(name).version("main").components
    registry.access.catalog.write(
        lambda tx: tx.execute(
            text("UPDATE manifest_entries SET file_id = :new, format = :format WHERE file_id = :old"),
            {"new": source.file_id, "old": target.file_id, "format": format},
        )
    )


def findings(registry: Registry) -> set[str]:
    return {finding.kind for finding in registry.verify().findings}


@pytest.mark.parametrize("heading", [b"dataset_registry parts/1\n", PACK])
@pytest.mark.parametrize("name", ["data.bin", "data.csv"])
def test_a_file_that_begins_like_our_own_texts_is_refused(
    owned: Registry, heading: bytes, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(heading + b"x")
    with pytest.raises(InputError, match="and cannot be stored"):
        owned.create_dataset("texts").commit({"data": tmp_path / name})
    assert not list(owned.files())


@pytest.mark.parametrize("heading", [b"dataset_registry parts/1\n", b"dataset_registry parts/2\n", b""])
def test_no_text_has_the_hash_of_a_table(owned: Registry, heading: bytes) -> None:
    owned.create_dataset("secret").commit({"data": SECRET})
    (component,) = owned.dataset("secret").version("main").components
    lines = listing(owned).partition(b"\n")[2]
    assert hashlib.sha256(heading + lines).hexdigest() != component.content_hash
    assert component.content_hash == parts_digest([Part(*_part(line)) for line in lines.splitlines()])


def _part(line: bytes) -> tuple[str, int, int]:
    content_hash, size = line.decode().split()
    return content_hash, int(size), 3


def test_a_list_that_is_committed_first_does_not_become_the_table(owned: Registry) -> None:
    owned.create_dataset("secret").commit({"data": SECRET})
    text_of_it = listing(owned)
    owned.dataset("secret").delete()
    owned.collect(older_than=timedelta(0))
    with patch("dataset_registry.content.stage.has_internal_heading", return_value=False):
        owned.create_dataset("forged").commit({"data": text_of_it})
    owned.create_dataset("secret").commit({"data": SECRET})
    assert owned.dataset("secret").version("main").to_arrow() == SECRET
    assert owned.verify(deep=True).clean


def test_a_list_of_an_older_table_gives_nothing_of_it(owned: Registry, legacy: None) -> None:
    owned.create_user("eve")
    owned.create_dataset("secret").commit({"data": SECRET})
    stored = {file.content_hash for file in owned.files()}
    with acting(owned, "eve") as eve:
        forged = eve.create_dataset("forged")
        with pytest.raises(CorruptionError, match="belongs to a stored table, not to a file"):
            forged.commit({"data": listing(owned)})
        for content_hash in stored:
            with pytest.raises(NotFound):
                eve.file(str(content_hash))


def test_an_older_table_is_not_put_over_a_list(owned: Registry, legacy: None) -> None:
    owned.create_dataset("secret").commit({"data": SECRET})
    text_of_it = listing(owned)
    owned.dataset("secret").delete()
    owned.collect(older_than=timedelta(0))
    owned.create_dataset("forged").commit({"data": text_of_it})
    with pytest.raises(CorruptionError, match="belongs to a stored file, not to a table"):
        owned.create_dataset("secret").commit({"data": SECRET})


def test_an_older_table_that_did_not_change_is_not_committed_again(owned: Registry) -> None:
    dataset = owned.create_dataset("secret")
    with patch("dataset_registry.content.stage.parts_digest", legacy_parts_digest):
        first = dataset.commit({"data": SECRET, "note": b"one"})
    assert dataset.commit({"data": SECRET}).number == first.number
    second = dataset.commit({"data": SECRET, "note": b"two"})
    assert second.number == 2
    assert second.components_named(["data"])[0].content_hash == first.components_named(["data"])[0].content_hash
    assert len([file for file in owned.files() if file.form == "parts"]) == 1
    assert owned.verify(deep=True).clean


def test_a_plain_file_that_was_forged_onto_a_table_reads_nothing_of_it_and_is_found(
    owned: Registry, legacy: None
) -> None:
    owned.create_user("eve")
    owned.create_dataset("secret").commit({"data": SECRET})
    (secret,) = owned.dataset("secret").version("main").components
    part = next(file for file in owned.files() if file.form != "parts")
    with acting(owned, "eve") as eve:
        eve.create_dataset("forged").commit({"data": b"to be replaced"})
        forge(owned, "forged", "secret", "binary")
        version = eve.dataset("forged").version("main")
        for read in (lambda: version.open("data"), lambda: version.uris("data"), lambda: version.paths("data")):
            with pytest.raises(CorruptionError, match="cannot be read"):
                read()
        for content_hash in (secret.content_hash, part.content_hash):
            with pytest.raises(NotFound):
                eve.file(str(content_hash))
            with pytest.raises(NotFound):
                spooled(eve.access, str(content_hash))
        assert content_hash not in {file.content_hash for file in eve.files()}
    assert "form" in findings(owned)


def test_a_table_that_was_put_over_a_list_is_found(owned: Registry, legacy: None) -> None:
    owned.create_dataset("forged").commit({"data": b"dataset_registry parts/1\n"})
    owned.create_dataset("secret").commit({"data": SECRET})
    forge(owned, "secret", "forged", "parquet")
    assert "form" in findings(owned)
    with pytest.raises(CorruptionError):
        owned.dataset("secret").version("main").to_arrow()


@pytest.mark.objects
def test_a_pack_is_not_committed_by_its_hash(owned: Registry) -> None:
    owned.create_dataset("many").commit({f"{n}": str(n).encode() for n in range(20)})
    (pack,) = [file for file in owned.files() if file.form == "pack"]
    with pytest.raises(InputError, match="a pack, not a file"):
        spooled(owned.access, str(pack.content_hash))
