"""Routes of a dataset by its name, and next steps as requests."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dataset_registry import Registry
from dataset_registry.errors import NotFound
from tests import serving
from tests.server.support import problem


@pytest.fixture
def served(sqlite_url: str, tmp_path: Path) -> Iterator[serving.Served]:
    with serving.in_thread(catalog=sqlite_url, store=str(tmp_path / "store")) as found:
        found.owner.create_dataset("raw/flights").commit({"data": b"1"}, message="first")
        yield found


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("datasets/by-name/raw/flights", 200),
        ("datasets/by-name/raw/flights/-/log", 200),
        ("datasets/by-name/raw/flights/-/branches/main", 200),
        ("datasets/by-name/raw%2Fflights/-/tree", 200),
        ("datasets/by-name/raw/flight/-/log", 404),
        ("datasets/by-name//-/log", 422),
        ("datasets/by-name/raw/flights/-/nothing", 404),
    ],
)
def test_a_dataset_is_found_by_its_name(served: serving.Served, path: str, status: int) -> None:
    with served.http() as http:
        assert http.get(path, params={"ref": "main"} if path.endswith("log") else {}).status_code == status


def test_a_name_that_may_not_be_read_is_answered_like_one_that_does_not_exist(served: serving.Served) -> None:
    served.owner.create_user("bob")
    with served.http("bob") as bob:
        foreign = problem(bob.get("datasets/by-name/raw/flights/-/log"), 404)
        absent = problem(bob.get("datasets/by-name/raw/absents/-/log"), 404)
    assert foreign["detail"].replace("flights", "absents") == absent["detail"]


def test_a_commit_by_name_lands(served: serving.Served) -> None:
    with served.http() as http:
        done: httpx.Response = http.post("datasets/by-name/raw/flights/-/versions", files={"data": b"2"})
        assert (done.status_code, done.json()["version"]["version_number"]) == (201, 2)


def test_next_steps_are_requests_over_rest_and_calls_in_python(served: serving.Served) -> None:
    with served.http() as http:
        detail = problem(http.get("datasets", params={"name": "raw/flihgts"}), 404)["detail"]
    assert detail == "No dataset 'raw/flihgts'. Did you mean 'raw/flights'? List datasets with GET /v1/datasets."
    with (
        Registry.open(served.url, token=served.token("admin")) as registry,
        pytest.raises(NotFound, match=r"registry\.datasets\(\)"),
    ):
        registry.dataset("raw/flihgts")
