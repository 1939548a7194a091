"""The first design to the letter: its REST routes and fields, on both databases. Each test is one of its lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.dagster_io import DatasetRegistryResource, build_tag_schedule
from dataset_registry.errors import InputError
from tests import serving
from tests.server.support import problem

CSV = b"id,name\n1,a\n2,b\n"


@pytest.fixture
def served(catalog_url: str, tmp_path: Path) -> Iterator[serving.Served]:
    """A server, on each kind of database."""
    with serving.in_thread(catalog=catalog_url, store=str(tmp_path / "store")) as found:
        yield found


@pytest.fixture
def http(served: serving.Served) -> Iterator[httpx.Client]:
    """An administrator before a dataset `flights` (id 1) with two versions on main."""
    with served.http() as client:
        assert client.post("datasets", json={"name": "flights"}).status_code == 201
        for content in (CSV, CSV + b"3,c\n"):
            commit(client, {"data": ("flights.csv", content)}, message="load")
        yield client


def commit(http: httpx.Client, files: dict[str, Any], status: int = 201, **fields: str) -> dict[str, Any]:
    answer = http.post("datasets/1/versions", files=files, data=fields)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def version(http: httpx.Client, number: int) -> dict[str, Any]:
    return dict(http.get("datasets/1/resolve", params={"ref": f"v{number}"}).json())


# --- files: content addressing -----------------------------------------------------------------------------------------


def test_the_same_content_is_stored_once_and_counted(http: httpx.Client, served: serving.Served) -> None:
    http.post("datasets", json={"name": "other"})
    first = http.get(f"datasets/1/versions/{version(http, 1)['id']}").json()["files"][0]
    assert first["reference_count"] == 1
    same = http.post("datasets/2/versions", files={"data": ("other.csv", CSV)}).json()
    assert same["new_bytes"] == 0
    info = http.get(f"files/{first['id']}").json()
    assert (info["content_hash"], info["reference_count"]) == (first["content_hash"], 2)
    assert http.delete("datasets/2").status_code == 200
    assert http.get(f"files/{first['id']}").json()["reference_count"] == 1


def test_a_file_of_no_version_is_collected(http: httpx.Client) -> None:
    files = http.get("files").json()["items"]
    assert sorted(file["file_size"] for file in files) == [len(CSV), len(CSV) + 4]
    assert http.delete("datasets/1").status_code == 200
    plan = http.post("collect/plan", json={"older_than_seconds": 0}).json()
    assert http.post("collect/apply", json=plan).status_code == 200
    assert http.get("files").json()["items"] == []


# --- versions: a parent and a message ------------------------------------------------------------------------------------


def test_a_version_starts_from_its_parent_on_the_branch_that_is_there(http: httpx.Client) -> None:
    head = version(http, 2)["id"]
    made = commit(http, {"data": ("x.csv", b"id\n1\n")}, parent_version_id=str(head), message="from v2")["version"]
    assert (made["parent_version_id"], made["message"], made["version_number"]) == (head, "from v2", 3)
    assert http.get("datasets/1/branches/main").json()["version_number"] == 3


def test_a_version_from_an_older_one_takes_the_name_of_a_new_branch(http: httpx.Client) -> None:
    old = version(http, 1)["id"]
    found = problem(commit_refused(http, parent_version_id=str(old)), 409)
    assert "No branch of flights is at v1" in found["detail"]
    assert "new branch" in found["detail"]
    made = commit(http, {"data": ("x.csv", b"id\n1\n")}, parent_version_id=str(old), branch="fix")["version"]
    assert (made["parent_version_id"], made["version_number"]) == (old, 3)
    assert http.get("datasets/1/branches/fix").json()["version_number"] == 3
    assert http.get("datasets/1/branches/main").json()["version_number"] == 2


def test_a_branch_that_has_moved_on_is_a_conflict_with_the_way_out(http: httpx.Client) -> None:
    found = problem(commit_refused(http, parent_version_id=str(version(http, 1)["id"]), branch="main"), 409)
    assert "flights@main is at v2, not at v1" in found["detail"]
    assert [v["version_number"] for v in http.get("datasets/1/versions").json()["items"]] == [2, 1]


def test_a_parent_of_another_dataset_is_not_there(http: httpx.Client) -> None:
    http.post("datasets", json={"name": "other"})
    other = http.post("datasets/2/versions", files={"data": b"x"}).json()["version"]["id"]
    problem(commit_refused(http, parent_version_id=str(other)), 404, "not_found")
    problem(commit_refused(http, parent_version_id="4711"), 404, "not_found")


def commit_refused(http: httpx.Client, **fields: str) -> httpx.Response:
    return http.post("datasets/1/versions", files={"data": ("x.csv", b"id\n9\n")}, data=fields)


def test_the_children_of_a_version_are_listed_and_the_log_ends_at_the_first(http: httpx.Client) -> None:
    first, second = version(http, 1)["id"], version(http, 2)["id"]
    assert [v["id"] for v in http.get(f"datasets/1/versions/{first}/children").json()["items"]] == [second]
    assert http.get(f"datasets/1/versions/{second}/children").json()["items"] == []
    log = http.get("datasets/1/log", params={"ref": "main"}).json()["items"]
    assert [(v["version_number"], v["message"]) for v in log] == [(2, "load"), (1, "load")]


def test_a_number_is_not_used_again(http: httpx.Client) -> None:
    made = commit(http, {"data": ("x.csv", b"id\n1\n")}, parent_version_id=str(version(http, 1)["id"]), branch="fix")
    assert http.delete("datasets/1/branches/fix").status_code == 200
    assert http.delete(f"datasets/1/versions/{made['version']['id']}").status_code == 200
    assert commit(http, {"data": ("x.csv", b"id\n2\n")})["version"]["version_number"] == 4


def test_the_head_of_a_branch_is_not_deleted(http: httpx.Client) -> None:
    problem(http.delete(f"datasets/1/versions/{version(http, 2)['id']}"), 409)
    assert [v["version_number"] for v in http.get("datasets/1/versions").json()["items"]] == [2, 1]


# --- a version's files and schema ------------------------------------------------------------------------------------------


def test_a_version_has_its_files_and_its_schema(http: httpx.Client) -> None:
    made = commit(http, {"notes": ("notes.txt", b"read me")}, component_type="metadata")["version"]
    found = http.get(f"datasets/1/versions/{made['id']}").json()
    assert found["message"] is None
    data, notes = found["files"]
    assert set(data) == {
        *("id", "component_type", "component_name", "component_index", "content_hash", "file_size", "reference_count")
    }
    assert (data["component_name"], data["component_type"], data["reference_count"]) == ("data", "data", 2)
    assert (notes["component_type"], notes["file_size"]) == ("metadata", 7)
    (schema,) = found["schema_json"]
    assert schema["component_name"] == "data"
    assert [column["name"] for column in schema["tables"][0]["columns"]] == ["id", "name"]


def test_the_schema_of_a_version_has_columns_and_statistics(http: httpx.Client) -> None:
    found = http.get(f"datasets/1/schema/{version(http, 2)['id']}").json()
    assert found["dataset_version_id"] == version(http, 2)["id"]
    (component,) = found["components"]
    (table,) = component["schema_json"]["tables"]
    assert [column["name"] for column in table["columns"]] == ["id", "name"]
    assert component["statistics_json"][0]["rows"] == 3


def test_versions_are_compared_by_component_and_column(http: httpx.Client) -> None:
    commit(http, {"data": ("flights.csv", b"id,name,late\n1,a,3\n")})
    found = http.get("datasets/1/compare", params={"before": "v2", "after": "v3"}).json()
    text = json.dumps(found)
    assert "late" in text
    assert http.get("datasets/1/compare", params={"before": "v2", "after": "v2"}).json() != found


def test_many_files_of_a_version_come_in_pages(http: httpx.Client) -> None:
    made = commit(http, {f"c{i:02}": (f"{i}", b"%d" % i) for i in range(25)})["version"]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = http.get(
            f"datasets/1/versions/{made['id']}", params={"limit": 10, **({"cursor": cursor} if cursor else {})}
        )
        seen += [file["component_name"] for file in page.json()["files"]]
        if (cursor := page.json()["next_cursor"]) is None:
            break
    assert seen == [*(f"c{i:02}" for i in range(25)), "data"]


# --- several files, a type each ---------------------------------------------------------------------------------------------


def test_a_form_gives_each_file_its_type(http: httpx.Client) -> None:
    types = json.dumps({"notes": "metadata", "columns": "schema"})
    files = {"data": ("x.csv", b"id\n1\n"), "notes": ("n.txt", b"n"), "columns": ("s.json", b"{}")}
    made = commit(http, files, component_types=types)
    assert {c["component_name"]: c["component_type"] for c in made["written"]} == {
        "data": "data",
        "notes": "metadata",
        "columns": "schema",
    }


@pytest.mark.parametrize(
    ("files", "fields", "words"),
    [
        ({}, {"message": "nothing"}, "This form has no files"),
        ({"data": b"x"}, {"component_types": "{"}, "'component_types' of the form is not JSON"),
        ({"data": b"x"}, {"component_types": '{"other": "data"}'}, "no file of the form is called so"),
        ({"data": b"x"}, {"component_types": '["data"]'}, "gives files of the form their types"),
        ({"data": b"x"}, {"read": "nonsense"}, "'read' of the form is not JSON"),
        ({"data": b"x"}, {"commit": "nonsense"}, "is not JSON"),
    ],
)
def test_a_form_that_cannot_be_meant_gets_a_sentence(
    http: httpx.Client, files: dict[str, bytes], fields: dict[str, str], words: str
) -> None:
    empty = {"files": files} if files else {"headers": {"Content-Type": "multipart/form-data; boundary=B"}}
    body = (
        {"data": fields}
        if files
        else {"content": b'--B\r\nContent-Disposition: form-data; name="message"\r\n\r\nx\r\n--B--\r\n'}
    )
    found = problem(http.post("datasets/1/versions", **empty, **body), 422)  # type: ignore[arg-type]
    assert words in found["detail"]


# --- trees, branches and tags -----------------------------------------------------------------------------------------------


def test_the_tree_is_told_flat_and_nested(http: httpx.Client) -> None:
    commit(http, {"data": ("x.csv", b"id\n1\n")}, parent_version_id=str(version(http, 1)["id"]), branch="fix")
    flat = http.get("datasets/1/tree").json()["items"]
    assert [(v["version_number"], v["parents"]) for v in flat] == [(3, [1]), (2, [1]), (1, [])]
    (root,) = http.get("datasets/1/tree/nested").json()["items"]
    assert root["version_number"] == 1
    assert [child["version_number"] for child in root["children"]] == [2, 3]
    assert [child["children"] for child in root["children"]] == [[], []]


def test_one_branch_and_one_tag_are_each_read(http: httpx.Client) -> None:
    assert http.post("datasets/1/tags", json={"pointer_name": "v1.0", "ref": "main"}).status_code == 201
    tag, branch = http.get("datasets/1/tags/v1.0"), http.get("datasets/1/branches/main")
    assert (tag.json()["is_tag"], tag.json()["version_number"]) == (True, 2)
    assert (branch.json()["is_tag"], branch.headers["ETag"]) == (False, '"v2"')
    problem(http.get("datasets/1/tags/main"), 404, "not_found")
    problem(http.get("datasets/1/tags/none"), 404, "not_found")


def test_pointers_lists_branches_and_tags(http: httpx.Client) -> None:
    http.post("datasets/1/tags", json={"pointer_name": "v1.0", "ref": "main"})
    found = http.get("datasets/1/pointers").json()["items"]
    assert [(p["pointer_name"], p["is_tag"]) for p in found] == [("main", False), ("v1.0", True)]


def test_a_tag_never_moves_and_a_branch_moves_where_it_is_told(http: httpx.Client) -> None:
    assert http.post("datasets/1/tags", json={"pointer_name": "v1.0", "ref": "v1"}).status_code == 201
    problem(http.post("datasets/1/tags", json={"pointer_name": "v1.0", "ref": "v2"}), 409, "tag_immutable")
    assert http.post("datasets/1/branches", json={"pointer_name": "dev", "ref": "v1"}).status_code == 201
    moved = http.patch("datasets/1/branches/dev", json={"ref": "v2"}, headers={"If-Match": '"v1"'})
    assert moved.json()["version_number"] == 2
    problem(http.patch("datasets/1/branches/dev", json={"ref": "v1"}, headers={"If-Match": '"v1"'}), 412)
    assert http.get("datasets/1/tags/v1.0").json()["version_number"] == 1
    assert http.delete("datasets/1/branches/dev").status_code == 200
    problem(http.get("datasets/1/branches/dev"), 404, "not_found")


# --- permissions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permission", "describes", "renames"), [("read", 403, 403), ("write", 200, 403), ("admin", 200, 200)]
)
def test_a_description_takes_write_and_a_name_takes_admin(
    http: httpx.Client, served: serving.Served, permission: str, describes: int, renames: int
) -> None:
    served.owner.create_user("bob")
    served.owner.grant("bob", permission, "flights")
    with served.http("bob") as bob:
        assert bob.patch("datasets/1", json={"description": "about"}).status_code == describes
        assert bob.patch("datasets/1", json={"name": "flights2"}).status_code == renames
        assert bob.patch("datasets/1", json={"name": "flights3", "description": "x"}).status_code == renames
        assert bob.delete("datasets/1").status_code == (200 if permission == "admin" else 403)


@pytest.mark.parametrize(
    ("permission", "reads", "commits", "grants"),
    [(None, 404, 404, 404), ("read", 200, 403, 403), ("write", 200, 201, 403), ("admin", 200, 201, 201)],
)
def test_each_permission_contains_the_ones_below_it(
    http: httpx.Client, served: serving.Served, permission: str | None, reads: int, commits: int, grants: int
) -> None:
    served.owner.create_user("bob")
    served.owner.create_user("carol")
    if permission is not None:
        served.owner.grant("bob", permission, "flights")
    with served.http("bob") as bob:
        assert bob.get("datasets/1").status_code == reads
        assert bob.post("datasets/1/versions", files={"data": b"id\n7\n"}).status_code == commits
        grant = {"user": "carol", "permission": "read", "name": "flights"}
        assert bob.post("grants", json=grant).status_code == grants


def test_the_id_of_a_grant_is_not_given_again(registry: Registry) -> None:
    registry.create_dataset("flights")
    registry.create_user("alice", role="administrator")
    for user in ("bob", "carol"):
        registry.create_user(user)
    first = registry.grant("carol", "read", "flights")
    registry.revoke("carol", "flights")
    assert registry.grant("bob", "read", "flights").id > first.id


# --- one text is one text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datasets", ["raw/*", ["raw/*"], ("raw/a", "raw/none")])
def test_a_schedule_tags_what_its_patterns_match_and_nothing_else(tmp_path: Path, datasets: Any) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        for name in ("raw/a", "a", "w", "r"):
            registry.create_dataset(name).commit({"data": b"1"})
    schedule = build_tag_schedule(datasets=datasets, template="t")
    done = schedule.job.execute_in_process(  # type: ignore[attr-defined]
        resources={"registry": DatasetRegistryResource(path=str(tmp_path / "registry"))}
    )
    assert done.success
    with Registry.open(tmp_path / "registry") as registry:
        assert [d.name for d in registry.datasets() if d.tags()] == ["raw/a"]


def test_one_text_is_no_sequence_of_characters(tmp_path: Path) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        table = registry.create_dataset("table")
        made = table.commit({"data": pa.table({"id": [1, 2], "i": [3, 4], "d": [5, 6]})}, key="id")
        assert made.schema.components["data"].tables[0].key == ("id",)
        with pytest.raises(InputError, match="a list of column names"):
            made.to_arrow(columns="id")
        table.create_branch("b")
        table.commit({"more": b"1"}, branch="b")
        registry.create_user("ada")
        assert registry.create_user("team", kind="group", members="ada").members == ("ada",)
        assert registry.update_user("team", members="ada").members == ("ada",)
        assert registry.protect("table", "main", allow="ada").allowed == ("ada",)
        with Registry.open(tmp_path / "copy") as copy:
            done = registry.copy_to(copy, datasets="table", refs="main")
            assert (done.datasets, [b.name for b in copy.dataset("table").branches()]) == (1, ["main"])
