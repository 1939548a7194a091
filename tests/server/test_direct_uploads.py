"""Uploads that go straight into the object store: checked before they count, collected when nobody commits them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from dataset_registry.errors import InputError
from dataset_registry.remote import dataset as remote
from dataset_registry.store import Cache
from dataset_registry.store.objects import ObjectStore
from dataset_registry.tabular import chunking
from tests import serving
from tests.operations.support import NOW, age, objects


@pytest.fixture
def on_s3(postgresql_catalog: str, s3_url: str) -> Iterator[serving.Served]:
    """A server over PostgreSQL and S3 that offers direct uploads."""
    with serving.in_thread(catalog=postgresql_catalog, store=s3_url, direct_uploads=True) as found:
        yield found


def test_a_large_file_goes_straight_into_the_store(
    on_s3: serving.Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_DIRECT", 2 << 20)
    sent: list[str] = []
    put = remote.Client.put

    def noted(self: remote.Client, url: str, *arguments: object) -> bool:
        sent.append(url)
        return put(self, url, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(remote.Client, "put", noted)
    data = os.urandom(3 << 20)
    version = on_s3.registry().create_dataset("raw/large").commit({"data": data})
    assert len(sent) == 1
    assert "Authorization" not in sent[0]
    with version.open() as stream:
        assert stream.read() == data
    assert on_s3.owner.verify(deep=True).clean


def test_of_what_is_stored_already_no_more_is_read_than_footers(
    on_s3: serving.Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "PART_BYTES", 1 << 18)
    random = np.random.default_rng(1)
    table = pa.table({"id": np.arange(60_000), "value": random.integers(0, 1 << 40, 60_000)})
    lines = tmp_path / "lines.csv"
    lines.write_text("a,b\n" + "1,2\n" * 5000)
    datasets = [on_s3.registry().create_dataset(name) for name in ("one", "two")]
    datasets[0].commit({"data": table, "lines": lines}, key=["id"])
    fetched: list[object] = []
    read: list[int] = []
    fetch, ranged = Cache.fetch, ObjectStore.read
    monkeypatch.setattr(
        Cache, "fetch", lambda self, *given, **how: (fetched.append(given), fetch(self, *given, **how))[1]
    )
    monkeypatch.setattr(ObjectStore, "read", lambda self, *given: (read.append(given[-1]), ranged(self, *given))[1])
    monkeypatch.setattr("dataset_registry.content.capture._FOOTER", 100)  # less than any has
    grown = pa.concat_tables([table, table.slice(0, 1000)])
    again = datasets[1].commit({"data": grown, "lines": lines}, key=["id"])
    assert fetched == []
    assert len(read) > 20
    assert sum(read) < 40_000
    assert again.to_arrow("data") == grown
    assert on_s3.owner.verify(deep=True).clean


def test_what_is_not_what_was_announced_is_refused(on_s3: serving.Served) -> None:
    on_s3.owner.create_dataset("raw/x")
    body = {"file_size": 5, "content_hash": hashlib.sha256(b"right").hexdigest(), "direct": True}
    with on_s3.http() as http:
        upload = http.post("uploads", json=body).json()
        assert httpx.put(upload["upload_url"], content=b"wrong").status_code == 200
        commit = {"components": [{"component_name": "data", "content": {"upload_id": upload["upload_id"]}}]}
        answer = http.post("datasets/1/versions", json=commit)
    assert answer.status_code == 422
    assert "mismatch" in answer.json()["detail"]
    assert on_s3.owner.dataset("raw/x").tree() == []


def test_what_nobody_commits_is_collected(on_s3: serving.Served) -> None:
    body = {"file_size": 5, "content_hash": hashlib.sha256(b"right").hexdigest(), "direct": True}
    with on_s3.http() as http:
        upload = http.post("uploads", json=body).json()
    httpx.put(upload["upload_url"], content=b"right").raise_for_status()
    assert len(objects(on_s3.owner)) == 1
    age(on_s3.owner, 2, "uploads.expires_at")
    on_s3.owner.collect(older_than=NOW)
    assert objects(on_s3.owner) == {}
    httpx.put(upload["upload_url"], content=b"right").raise_for_status()  # the address is good for an hour
    on_s3.owner.collect(older_than=NOW)
    assert objects(on_s3.owner) == {}
    assert on_s3.owner.verify(deep=True).clean


def test_a_folder_has_no_address_to_put_to(served: serving.Served) -> None:
    with served.http() as http:
        body = {"file_size": 5, "content_hash": "a" * 64, "direct": True}
        assert http.post("uploads", json=body).json()["upload_url"] is None


def test_a_store_out_of_reach_is_gone_around(on_s3: serving.Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_DIRECT", 2 << 20)
    monkeypatch.setattr(remote.Client, "put", lambda *arguments: False)
    version = on_s3.registry().create_dataset("raw/large").commit({"data": b"x" * (3 << 20)})
    assert version.components[0].size == 3 << 20
    with pytest.raises(InputError, match="nothing to commit"):
        on_s3.registry().dataset("raw/large").commit({})
