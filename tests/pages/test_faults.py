"""What an attack on the pages found."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from dataset_registry import Dataset, InputVersion, Provenance
from tests import serving
from tests.pages.conftest import Client, form_key, sign_in
from tests.waiting import until


@pytest.fixture
def admin(served: serving.Served) -> Iterator[httpx.Client]:
    served.owner.create_user("admin", role="administrator")
    client = sign_in(served, "admin")
    yield client
    client.close()


def compared(dataset: Dataset, admin: httpx.Client, *tables: pa.Table, key: str = "") -> str:
    """The page that compares two tables."""
    for table in tables:
        dataset.commit({"data": table}, key=key or ())
    answer = admin.get(f"/datasets/{dataset.name}/compare/v1...v2/-/rows?component=data")
    assert answer.status_code == 200, answer.text
    return answer.text.partition("<tbody>")[2].partition("</tbody>")[0]


@pytest.mark.parametrize(
    ("key", "before", "after", "cells"),
    [
        ("before_id", {"before_id": [1], "x": [1]}, {"before_id": [1], "x": [2]}, ["1", "<del>1</del> <ins>2</ins>"]),
        ("after", {"after": [1], "after_id": [1]}, {"after": [1], "after_id": [2]}, ["1", "<del>1</del> <ins>2</ins>"]),
        ("id", {"id": [1], "t": [1]}, {"id": [1], "t": ["1"]}, ["1", "<del>1</del> <ins>1</ins>"]),
        (
            "id",
            {"id": [1], "before_x": [1]},
            {"id": [1], "before_x": [None]},
            ["1", '<del>1</del> <ins><span class="null">null</span></ins>'],
        ),
    ],
)
def test_cells_are_compared_whatever_their_columns_are_called(
    key: str,
    before: dict[str, list[object]],
    after: dict[str, list[object]],
    cells: list[str],
    served: serving.Served,
    admin: httpx.Client,
) -> None:
    dataset = served.owner.create_dataset("d")
    page = compared(dataset, admin, pa.table(before), pa.table(after), key=key)
    for cell in ["changed", *cells]:
        assert f">{cell}</td>" in page


def test_rows_without_a_key_show_their_own_values(served: serving.Served, admin: httpx.Client) -> None:
    tables = (pa.table({"before_x": [1, 2], "y": [1, 2]}), pa.table({"before_x": [1, 3], "y": [1, 2]}))
    page = compared(served.owner.create_dataset("d"), admin, *tables)
    assert "<td>removed</td><td>2</td><td>2</td>" in page
    assert "<td>added</td><td>3</td><td>2</td>" in page


def test_long_values_that_differ_at_their_end_are_marked(served: serving.Served, admin: httpx.Client) -> None:
    tables = (pa.table({"id": [1], "t": ["x" * 300 + end]}) for end in "ab")
    assert 'class="cell"' in compared(served.owner.create_dataset("d"), admin, *tables, key="id")


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("ns"), pa.list_(pa.date32())])
def test_dates_that_python_does_not_have_are_shown(
    kind: pa.DataType, served: serving.Served, admin: httpx.Client
) -> None:
    big = 2**30 if "date32" in str(kind) else 2**62
    values = ([[big]], [[big + 1]]) if pa.types.is_nested(kind) else ([big], [big + 1])
    tables = (pa.table({"id": [1], "t": pa.array(value, kind)}) for value in values)
    compared(served.owner.create_dataset("d"), admin, *tables, key="id")
    answer = admin.get("/datasets/d@main/-/preview")
    assert answer.status_code == 200
    assert "error" not in answer.text


def test_components_whose_names_begin_alike_are_compared_each(served: serving.Served, admin: httpx.Client) -> None:
    dataset = served.owner.create_dataset("d")
    for value in (1, 2):
        dataset.commit({name: pa.table({"v": [value]}) for name in ("data", "data/x")})
    assert "<td>added</td><td>2</td>" in admin.get("/datasets/d/compare/v1...v2/-/rows?component=data/x").text


def test_sources_of_columns_that_one_may_not_read_are_not_shown(served: serving.Served) -> None:
    secret = served.owner.create_dataset("secret/s").commit({"data": b"1"})
    read = InputVersion("secret/s", 1, secret.digest, "main", uuid=secret.record.uuid)
    facts = {"column_lineage": {"z": [["secret/s", "hidden_column"], ["shop/open", "price"]]}}
    served.owner.create_dataset("shop/open").commit({"data": b"2"})
    with served.owner.draft("shop/made", provenance=Provenance(run_id="r", inputs=(read,), metadata=facts)) as draft:
        draft.add("data", pa.table({"z": [1]}))
    served.owner.create_user("reader", role="guest")
    served.owner.grant("reader", "read", "shop/")
    client = sign_in(served, "reader")
    page = client.get("/datasets/shop/made@main/-/lineage").text
    client.close()
    assert "shop/open.price" in page
    assert "secret" not in page
    made = served.registry("reader").version("shop/made").productions[0].provenance.metadata
    assert made["column_lineage"] == {"z": [["shop/open", "price"]]}
    assert served.owner.version("shop/made").column_lineage["z"][0] == ("secret/s", "hidden_column")


def test_columns_are_found_whatever_characters_they_have(served: serving.Served, admin: httpx.Client) -> None:
    table = pa.table({"größe": [1], 'quo"te': [1]})
    served.owner.create_dataset("d").commit({"data": table})
    for name in table.column_names:
        assert "Columns of current versions" in admin.get("/search", params={"q": name}).text


def test_signing_out_leaves_the_token_that_was_typed(served: serving.Served, admin: httpx.Client) -> None:
    token = served.token("admin")
    form = {"form_key": form_key(admin), "name": "x"}
    served.owner.create_dataset("d").commit({"data": b"1"})
    served.owner.freeze("Backup")
    until(lambda: admin.post("/datasets/d@main/-/tag", data=form).status_code == 423)
    with httpx.Client(base_url=served.url) as client:
        assert client.post("/sign-in", data={"token": token}).status_code == 303
        served.owner.unfreeze()
        until(lambda: admin.post("/datasets/d@main/-/tag", data=form).status_code in (303, 409))
        assert client.post("/sign-out", data={"form_key": form_key(client)}).status_code == 303
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/v1/whoami", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "://", "x", "http://127.0.0.1:1"])
def test_an_origin_that_is_not_ours_is_foreign(origin: str, served: serving.Served) -> None:
    answer = httpx.post(served.url + "/sign-in", data={"token": "x"}, headers={"Origin": origin})
    assert answer.status_code == 403


def test_a_page_approves_what_it_showed(served: serving.Served, admin: httpx.Client) -> None:
    dataset = served.owner.create_dataset("d")
    dataset.commit({"data": b"1"})
    dataset.create_branch("pr")
    dataset.commit({"data": b"2"}, branch="pr")
    review = served.owner.create_review("pr", title="t")
    seen = admin.get("/reviews/1").text.partition('name="seen" value="')[2].partition('"')[0]
    dataset.commit({"data": b"3"}, branch="pr")
    for action in ("approve", "reject", "merge"):
        form = {"form_key": form_key(admin), "action": action, "seen": seen}
        answer = admin.post("/reviews/1", data=form)
        assert (answer.status_code, "moved since you looked" in answer.text) == (409, True)
    assert served.owner.review(review.id).events == ()
    assert dataset.version().number == 1


def test_conflicts_are_resolved_for_open_reviews_and_their_datasets_only(
    served: serving.Served, admin: httpx.Client
) -> None:
    for name in ("d", "other"):
        served.owner.create_dataset(name).commit({"data": b"1"})
    dataset = served.owner.dataset("d")
    dataset.create_branch("pr")
    dataset.commit({"data": b"2"}, branch="pr")
    served.owner.create_review("pr", title="t")
    form = {"form_key": form_key(admin), "dataset": "other", "strategy": "fail"}
    assert admin.post("/reviews/1/resolve", data=form).status_code == 404
    served.owner.close_review(1)
    assert admin.post("/reviews/1/resolve", data={**form, "dataset": "d"}).status_code == 409
    assert [branch.name for branch in served.owner.dataset("other").branches()] == ["main"]


def test_a_review_is_shown_when_its_branch_or_its_versions_are_gone(
    served: serving.Served, admin: httpx.Client, tmp_path: Path
) -> None:
    dataset = served.owner.create_dataset("d")
    dataset.commit({"data": b"1"})
    for number in (1, 2):
        dataset.create_branch("pr", "v1")
        dataset.commit({"data": b"new %d" % number}, branch="pr")
        served.owner.create_review("pr", title="t")
        if number == 1:
            served.owner.merge_review(1)
            dataset.move_branch("main", "v1")
        dataset.delete_branch("pr")
    dataset.delete_version("v2")
    assert "merged" in admin.get("/reviews/1").text
    gone = admin.get("/reviews/2")
    assert (gone.status_code, "No dataset has a branch" in gone.text) == (200, True)
    assert 'value="merge" disabled' in gone.text


def test_a_filter_of_the_gallery_is_cut_to_what_a_name_can_be(signed_in: Client) -> None:
    assert signed_in("reader").get("/?q=" + "x" * 60_000).status_code == 200
