"""The bucket `registry` over S3: who reads what, lists, ranges, and the answers to bad requests."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import obstore
import pyarrow as pa
import pytest
from obstore.store import S3Store

from dataset_registry import Dataset
from tests import serving
from tests.serving import Served

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@pytest.fixture
def bucket(tables: Served) -> Iterator[httpx.Client]:
    """Plain HTTP to the bucket, as `reader`."""
    headers = {"X-Amz-Security-Token": tables.token("reader", permission="read")}
    with httpx.Client(base_url=f"{tables.url}/registry/", headers=headers) as client:
        yield client


def _store(url: str, token: str) -> S3Store:
    return S3Store(
        "registry",
        endpoint=url,
        access_key_id="registry",
        secret_access_key="registry",
        session_token=token,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


@pytest.mark.objects
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_form_of_a_file_is_read_whole_and_by_range(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Objects, and recipes of ranges of objects and packs; on a folder and on S3."""
    catalog = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgresql_catalog")
    place = str(tmp_path / "store") if database == "sqlite" else request.getfixturevalue("s3_url")
    with serving.in_thread(catalog=catalog, store=place) as served:
        dataset = served.owner.create_dataset("raw/forms")
        _check_forms(served, dataset)


def _check_forms(served: Served, dataset: Dataset) -> None:
    table = pa.table({"id": range(60_000), "text": [f"{n % 977:0200}" for n in range(60_000)]})
    large = bytes(range(256)) * 8000
    dataset.commit({"table": table, "blob": large, **{f"small/{n}": f"{n}".encode() * 500 for n in range(20)}})
    dataset.commit(
        {"table": table.append_column("more", pa.array(range(60_000))), "blob": large + b"end", "tiny": b"x"}
    )
    forms = {file.file.form for number in (1, 2) for file in dataset.version(f"v{number}").files()}
    assert forms >= {"whole", "ranges"}
    served.owner.create_user("admin", role="administrator")
    store = _store(served.url, served.token("admin"))
    for number in (1, 2):
        for file in dataset.version(f"v{number}").files():
            key = f"datasets/raw/forms@v{number}/{file.path}"
            with dataset.version(f"v{number}").open_file(file) as stream:
                content = stream.read()
            assert bytes(obstore.get(store, key).bytes()) == content
            assert obstore.head(store, key)["size"] == file.size
            start = file.size // 3
            stop = min(start + 100, file.size)
            assert bytes(obstore.get_range(store, key, start=start, end=stop)) == content[start:stop]


def test_a_list_has_what_a_version_has_in_pages_and_in_folders(tables: Served) -> None:
    store = _store(tables.url, tables.token("reader", permission="read"))
    paths = sorted(file.path for file in tables.owner.version("raw/days").files())
    root = "datasets/raw/days@main/"
    listed = [found["path"] for page in obstore.list(store, root, chunk_size=5) for found in page]
    assert listed == [root + path for path in paths]
    large = obstore.list_with_delimiter(store, "datasets/raw/many@main")
    assert large["common_prefixes"] == ["datasets/raw/many@main/data.parquet"]
    assert large["objects"] == []


def test_a_long_list_is_continued_where_it_ended(bucket: httpx.Client, tables: Served) -> None:
    found: list[str] = []
    token: str | None = None
    for _ in range(30):
        more = {} if token is None else {"continuation-token": token}
        query = {"list-type": "2", "prefix": "datasets/raw/days@main/", "max-keys": "4", **more}
        answer = ElementTree.fromstring(bucket.get("", params=query).raise_for_status().text)
        found += [key.text or "" for key in answer.iter(f"{NAMESPACE}Key")]
        token = answer.findtext(f"{NAMESPACE}NextContinuationToken")
        if token is None:
            break
    assert len(found) == len(set(found)) == 21


def test_a_ref_with_a_slash_is_escaped_in_a_key(tables: Served, bucket: httpx.Client) -> None:
    tables.owner.dataset("raw/days").create_branch("pr/1")
    try:
        answer = bucket.head("datasets/raw/days@pr%252F1/2026-01-01.parquet")  # as clients escape the key once more
        assert answer.status_code == 200
    finally:
        tables.owner.dataset("raw/days").delete_branch("pr/1")


def test_a_url_with_the_token_reads_without_headers(tables: Served) -> None:
    token = tables.token("reader", permission="read")
    url = f"{tables.url}/registry/datasets/plain@main/data.parquet"
    assert httpx.get(url, params={"X-Amz-Security-Token": token}).content[:4] == b"PAR1"
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).content[:4] == b"PAR1"
    assert httpx.get(url).status_code == 403


KEYS = (
    "datasets/secret/table@main/data.parquet",
    "datasets/secret/absent@main/data.parquet",
    "delta/secret/table@main/_delta_log/00000000000000000000.json",
    "iceberg/{secret}/-/main.metadata.json",
    "iceberg/{secret}/-/1-0-list.avro",
    "iceberg/{secret}/-/data/{hash}.parquet",
    "data/{hash}.parquet",
)


@pytest.mark.parametrize("key", KEYS)
def test_what_a_user_may_not_read_is_as_absent(key: str, tables: Served, bucket: httpx.Client) -> None:
    """A hash is no capability, nor is an id."""
    secret = tables.owner.dataset("secret/table")
    (file,) = secret.version().files()
    path = key.format(secret=secret.id, hash=file.content_hash)
    absent = key.format(secret=987654, hash="0" * 64).replace("secret/table", "secret/nothing")

    def told(path: str) -> tuple[int, str]:
        answer = bucket.get(path)
        names = re.sub(r"<RequestId>.*</RequestId>|[0-9a-f]{64}|\d+|secret/\w+", "", answer.text)
        return answer.status_code, names

    assert told(path) == told(absent)
    assert told(path)[0] == 404
    admin = tables.token("admin2") if "admin2" in {user.name for user in tables.owner.users()} else None
    if admin is None:
        tables.owner.create_user("admin2", role="administrator")
        admin = tables.token("admin2")
    if "absent" not in key:
        assert bucket.get(path, headers={"X-Amz-Security-Token": admin}).status_code == 200


def test_a_token_reads_under_its_prefix_only(tables: Served, bucket: httpx.Client) -> None:
    narrow = {"X-Amz-Security-Token": tables.token("reader", permission="read", prefix="raw/")}
    assert bucket.get("datasets/raw/days@main/2026-01-01.parquet", headers=narrow).status_code == 200
    assert bucket.get("datasets/plain@main/data.parquet", headers=narrow).status_code == 404
    (file,) = tables.owner.version("plain").files()
    assert bucket.get(f"data/{file.content_hash}.parquet").status_code == 200
    assert bucket.get(f"data/{file.content_hash}.parquet", headers=narrow).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "datasets/plain@main/nothing", {}, 404, "NoSuchKey"),
        ("GET", "datasets/plain@nothing/data.parquet", {}, 404, "NoSuchKey"),
        ("GET", "elsewhere/x", {}, 404, "NoSuchKey"),
        ("GET", "iceberg/x/-/main.metadata.json", {}, 404, "NoSuchKey"),
        ("GET", "datasets/plain@main/data.parquet", {"Range": "bytes=999999-"}, 416, "InvalidRange"),
        ("PUT", "datasets/plain@main/data.parquet", {}, 405, "MethodNotAllowed"),
        ("DELETE", "data/x", {}, 405, "MethodNotAllowed"),
        ("POST", "", {}, 405, "MethodNotAllowed"),
        ("GET", "datasets/plain@main/data.parquet", {"X-Amz-Security-Token": "dr_wrong"}, 403, "AccessDenied"),
        ("GET", "datasets/plain@~~^x/data.parquet", {}, 400, "InvalidRequest"),
    ],
)
def test_errors_are_those_of_s3(
    method: str, path: str, headers: dict[str, str], status: int, code: str, bucket: httpx.Client
) -> None:
    answer = bucket.request(method, path, headers=headers)
    assert answer.status_code == status
    assert ElementTree.fromstring(answer.text).findtext("Code") == code


def test_metadata_files_are_the_same_whenever_they_are_made(tables: Served, bucket: httpx.Client) -> None:
    """Clients ask for the length first, and several servers may answer."""
    from dataset_registry.table_formats import iceberg_tables

    number = tables.owner.dataset("raw/many").id
    first = [bucket.get(f"iceberg/{number}/-/2-1-{part}.avro").content for part in ("list", "changes", "existing")]
    iceberg_tables._manifests.clear()
    assert [
        bucket.get(f"iceberg/{number}/-/2-1-{part}.avro").content for part in ("list", "changes", "existing")
    ] == first
    assert all(content.startswith(b"Obj\x01") for content in first)


def test_a_list_ends_for_clients_of_both_forms(bucket: httpx.Client) -> None:
    """A page of none is the last one; the first form of lists goes on from a marker."""
    none = bucket.get("", params={"list-type": "2", "prefix": "datasets/raw/days@main/", "max-keys": "0"}).text
    assert "<IsTruncated>false</IsTruncated>" in none
    found: list[str] = []
    marker = ""
    for _ in range(30):
        query = {"prefix": "datasets/raw/days@main/", "max-keys": "9", "marker": marker}
        answer = ElementTree.fromstring(bucket.get("", params=query).text)
        found += [key.text or "" for key in answer.iter(f"{NAMESPACE}Key")]
        marker = answer.findtext(f"{NAMESPACE}NextMarker") or ""
        if not marker:
            break
    assert len(found) == len(set(found)) == 21
    assert ElementTree.fromstring(bucket.get("", params={"list-type": "2", "prefix": "\x01"}).text) is not None
