"""Files and their reference counts."""

import os
from datetime import timedelta

import pytest

from dataset_registry import Dataset, Registry
from dataset_registry.errors import (
    InvalidRef,
    NotFound,
)
from tests.contracts.scenarios import (
    Way,
    error_of,
    everywhere,
    read,
    sha256,
)

NOW = timedelta(0)


@pytest.mark.objects
def test_content_is_stored_once_counted_exactly_and_gone_when_nothing_names_it(alone: Way) -> None:
    registry, data = alone.registry, b"the same content"
    first, second = registry.create_dataset("first"), registry.create_dataset("second")
    one = first.commit({"data": data})
    with second.draft() as draft:
        draft.add("other", data)
    assert (draft.result.new_bytes, draft.result.total_bytes, draft.result.unchanged) == (0, len(data), False)
    assert registry.file(sha256(data)[:10]).reference_count == 2
    assert one.components[0].content_hash == draft.version.components[0].content_hash == sha256(data)
    assert [file.content_hash for file in registry.files()] == [sha256(data)]
    second.delete()
    assert registry.file(sha256(data)).reference_count == 1
    assert read(one) == data
    first.delete()
    assert registry.file(sha256(data)).reference_count == 0
    assert registry.collect().files == 0, "it is younger than a day"
    done = registry.collect(older_than=NOW)
    assert (done.files, done.objects, done.bytes) == (1, 1, len(data))
    assert list(registry.files()) == list(alone.objects().list()) == []
    assert isinstance(error_of(lambda: registry.file(sha256(data))), NotFound)


def test_a_file_of_two_components_counts_twice(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(40)
    flights.commit({"one": data, "two": data})
    assert any_registry.file(sha256(data)).reference_count == 2
    flights.commit({"one": b"else"})
    assert any_registry.file(sha256(data)).reference_count == 3
    assert len({c.file_id for c in flights.version("v1").components}) == 1


@everywhere
def test_a_stored_file_is_opened_by_the_beginning_of_its_hash(flights: Dataset, any_registry: Registry) -> None:
    data = os.urandom(1000)
    flights.commit({"data": data})
    found = any_registry.file(sha256(data)[:16])
    assert (found.content_hash, found.size, found.form, found.format) == (sha256(data), 1000, "inline", "binary")
    assert found.created_at.utcoffset() == timedelta(0)
    assert found.compression_type is None
    with any_registry.open_file(sha256(data)[:16]) as stream:
        assert stream.read(10) == data[:10]
        assert stream.read() == data[10:]
        assert stream.read() == b""
    assert found.id in [file.id for file in any_registry.files()]
    for wrong, kind in (("ab", InvalidRef), ("not hex!", InvalidRef), ("0" * 64, NotFound)):
        assert type(error_of(lambda wrong=wrong: any_registry.file(wrong))) is kind
        assert type(error_of(lambda wrong=wrong: any_registry.open_file(wrong))) is kind


def test_files_are_listed_oldest_first(flights: Dataset, any_registry: Registry) -> None:
    for start in range(0, 30, 10):
        with flights.draft() as draft:
            for number in range(start, start + 10):
                draft.add(f"{number:02}", f"{flights.name} {number}".encode())
    found = list(any_registry.files())
    assert [file.id for file in found] == sorted(file.id for file in found)
    ours = {c.content_hash for c in draft.version.components}
    assert sorted(file.reference_count for file in found if file.content_hash in ours) == [1] * 10 + [2] * 10 + [3] * 10
