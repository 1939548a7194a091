"""Several callers at once, and closing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from dataset_registry import Dataset, Registry
from tests.contracts.scenarios import (
    Way,
    everywhere,
    read,
)


@everywhere
def test_threads_share_one_registry(flights: Dataset, any_registry: Registry) -> None:
    flights.commit({"data": pa.table({"n": [1, 2, 3]})})
    barrier = threading.Barrier(6)

    def work(number: int) -> tuple[int, int]:
        barrier.wait()
        made = any_registry.dataset(flights.name).commit({f"part-{number}": b"%d" % number})
        assert read(made, f"part-{number}") == b"%d" % number
        return made.number, made.to_arrow("data").num_rows

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, range(6)))
    assert sorted(number for number, _ in found) == [2, 3, 4, 5, 6, 7]
    assert {rows for _, rows in found} == {3}
    assert flights.version().component_count == 7


def test_a_registry_says_where_it_is_and_who_asks(way: Way) -> None:
    assert way.registry.actor == "admin"
    assert repr(way.registry) == f"<Registry {way.registry.location} as admin>"
    if way.served is not None:
        assert way.registry.location == way.served.url
    assert "testsecret" not in way.registry.location
