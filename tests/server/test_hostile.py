"""Files, names and requests of strangers: refused with a clear problem or kept as plain bytes, and the server stays up.

One server for all of them: what one leaves behind, the next one would meet.
"""

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from shutil import copy
from time import sleep
from typing import Any

import httpx
import pyarrow as pa
import pytest
from sqlalchemy import func, select

from dataset_registry.catalog.tables import metadata
from dataset_registry.tabular import isolated
from tests import serving
from tests.server import bombs
from tests.server.support import PROBLEM, commit_file, high_water, problem, processor_seconds, watched
from tests.waiting import SAFETY

MB = 1 << 20
GB = 1 << 30
SERVER = 450 * MB
SECONDS = 30
"""Of the processor, of the server and its workers: a busy machine takes longer and does no more."""
SHORT = {"Content-Type": "application/json", "Content-Length": "99"}
_numbers = count(1_000_000)


@pytest.fixture(scope="module")
def victim(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Served]:
    """A server as users start it, that all of these tests attack."""
    folder = tmp_path_factory.mktemp("victim")
    copy(sqlite_template, folder / "catalog.sqlite")
    url, limits = f"sqlite:///{folder / 'catalog.sqlite'}", {"SEAL_SECONDS": "0", "BODY_SECONDS": "2"}
    with serving.in_process(catalog=url, store=str(folder / "store"), log=folder / "log", **limits) as served:
        yield served


@pytest.fixture(scope="module")
def admin(victim: serving.Served) -> Iterator[httpx.Client]:
    with victim.http() as http:
        assert commit_file(http, b"id\n1\n", dataset="a", name="a.csv").status_code == 201
        yield http


@pytest.fixture
def unharmed(victim: serving.Served, admin: httpx.Client) -> Iterator[None]:
    """The server is up afterwards, takes an ordinary commit, and took no more time and memory than it may."""
    assert victim.process is not None
    begun = processor_seconds(victim.process.pid)
    with watched(victim.process.pid) as memory:
        yield
        seconds = processor_seconds(victim.process.pid) - begun
    assert victim.process.poll() is None, "the server is gone"
    assert admin.get(victim.url + "/health", timeout=SAFETY).status_code == 200
    answer = commit_file(admin, b"id\n%d\n" % next(_numbers), dataset="a", name="a.csv")
    assert answer.status_code == 201, answer.text
    assert seconds < SECONDS
    assert memory["server"] < SERVER, f"{memory['server'] >> 20} MB"
    assert memory["worker"] < isolated.MEMORY + 200 * MB, f"{memory['worker'] >> 20} MB"
    print(f"{seconds:.1f} s, server {memory['server'] >> 20} MB, worker {memory['worker'] >> 20} MB")


def _stored(served: serving.Served) -> dict[str, int]:
    """How many rows each table has, and how many files the store."""
    with served.owner.access.catalog.read() as tx:
        found = {t.name: tx.execute(select(func.count()).select_from(t)).scalar() for t in metadata.tables.values()}
    found["objects"] = sum(1 for path in served.owner.access.store.scratch.parent.rglob("*") if path.is_file())
    return found


# --- files ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a cell far out": ("x.xlsx", bombs.far_cell),
    "a cell far out in single quotes": ("x.xlsx", bombs.far_cell_in_single_quotes),
    "a cell far out in a file called .xls": ("x.xls", bombs.far_cell_in_single_quotes),
    "a cell far out in a file called .ods": ("x.ods", bombs.far_cell_in_single_quotes),
    "a sheet that unfolds and does not say so": ("x.xlsx", lambda: bombs.undeclared_sheet(50 * MB)),
    "an encrypted spreadsheet": ("x.xlsx", bombs.encrypted_sheet),
    "a truncated spreadsheet": ("x.xlsx", lambda: bombs.workbook()[:-200]),
    "a zip with a link out of it as a spreadsheet": ("x.xlsx", bombs.link_in_zip),
    "a tar with a link as a spreadsheet": ("x.xlsx", bombs.link_in_tar),
    "noise as an old spreadsheet": ("x.xls", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(range(256)) * 20),
    "truncated Parquet": ("x.parquet", lambda: bombs.good_parquet()[:-10]),
    "the first half of Parquet": ("x.parquet", lambda: bombs.good_parquet()[:300]),
    "nothing but the magic of Parquet": ("x.parquet", lambda: b"PAR1PAR1"),
    "Parquet with noise for a footer": ("x.parquet", bombs.bad_thrift),
    "Parquet with a footer of 2 GB": ("x.parquet", bombs.long_footer),
    "polyglot, as Parquet": ("x.parquet", bombs.polyglot),
    "nested JSON": ("x.json", lambda: bombs.deep_json(100_000)),
    "JSON with a key twice": ("x.json", lambda: b'{"a":1,"a":2}'),
    "JSON with half a character": ("x.json", lambda: b'{"a":"\\ud800"}'),
    "a pickle as CSV": ("x.csv", bombs.pickled),
    "a pickle as Parquet": ("x.parquet", bombs.pickled),
    "gzip as CSV": ("x.csv", lambda: bombs.gzip_bomb(50 * MB)),
    "CSV of 20,000 columns": ("x.csv", lambda: bombs.wide_csv(20_000)),
    "CSV of one long line": ("x.csv", lambda: b"a" * (50 * MB)),
    "overlong UTF-8 in CSV": ("x.csv", lambda: b"a,b\n\xc0\xaf,\xed\xa0\x80\n"),
    "noise as CSV": ("x.csv", lambda: bytes(range(256)) * 100),
    "an empty CSV": ("x.csv", lambda: b""),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("unharmed")
def test_files_that_are_not_what_they_seem_are_refused(what: str, victim: serving.Served, admin: httpx.Client) -> None:
    name, make = REFUSED[what]
    before = _stored(victim)
    found = problem(commit_file(admin, make(), name=name), 422, "unreadable_file")
    assert len(found["detail"]) < 2000
    assert "/tmp" not in found["detail"]  # nothing about where things are
    assert "site-packages" not in found["detail"]
    assert _stored(victim) == before


def test_a_file_that_is_refused_says_what_is_wrong_with_it(admin: httpx.Client) -> None:
    for what, word in (
        ("a cell far out", "16,384 columns"),
        ("an encrypted spreadsheet", "encrypted"),
        ("truncated Parquet", "truncated"),
        ("gzip as CSV", "encoded"),
        ("nested JSON", "depth"),
        ("an empty CSV", "empty"),
    ):
        name, make = REFUSED[what]
        assert word in commit_file(admin, make(), name=name).json()["detail"], what


def test_a_file_of_too_many_columns_is_told_so(admin: httpx.Client) -> None:
    assert "columns" in commit_file(admin, bombs.wide_csv(20_000), name="x.csv").json()["detail"]


def test_parquet_of_too_many_columns_is_told_so_too(admin: httpx.Client) -> None:
    data = bombs.many_columns(17_000)
    problem(commit_file(admin, data, dataset="wide", name="x.parquet"), 422, "unreadable_file")


KEPT: dict[str, tuple[str, Callable[[], bytes]]] = {
    # plain bytes, never opened
    "a pickle": ("x.pkl", bombs.pickled),
    "a gzip bomb": ("x.gz", lambda: bombs.gzip_bomb(50 * MB)),
    "a zip with links": ("x.zip", bombs.link_in_zip),
    "a tar with links": ("x.tar", bombs.link_in_tar),
    "a page that runs a script": ("x.html", lambda: b"<script>alert(1)</script>"),
    "polyglot": ("x.png", bombs.polyglot),
    "a spreadsheet bomb with another name": ("x.bin", bombs.far_cell),
    # tables that are odd, and small where they are looked at
    "a billion laughs in a sheet": ("x.xlsx", bombs.entities),
    "10 million equal values": ("x.parquet", lambda: bombs.many_equal_values(10, statistics=True)),
    "10 million equal values without statistics": ("x.parquet", lambda: bombs.many_equal_values(10, statistics=False)),
    "a value of 50 MB in 5 kB": ("x.parquet", lambda: bombs.one_long_value(50 * MB)),
    "columns in columns": ("x.parquet", lambda: bombs.deep_columns(60)),
    "a NUL in JSON": ("x.json", lambda: b'{"a\\u0000b": "\\u0000"}'),
    "numbers without end in JSON": ("x.json", lambda: b'{"a": 1e999, "b": -1e999, "c": ' + b"9" * 5000 + b"}"),
    "NaN and infinity in CSV": ("x.csv", lambda: b"a\nNaN\nInfinity\n1e999\n"),
    "columns that differ in case, and one without a name, in CSV": ("x.csv", lambda: b"a,A,\n1,2,3\n"),
    "a formula in CSV": ("x.csv", lambda: b"a\n=cmd|'/c calc'!A1\n"),
}


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.usefixtures("unharmed")
def test_odd_files_are_kept_as_they_are_and_downloaded_as_bytes(
    what: str, victim: serving.Served, admin: httpx.Client
) -> None:
    name, make = KEPT[what]
    data = make()
    answer = commit_file(admin, data, dataset="kept", name=name)
    assert answer.status_code == 201, answer.text
    version, dataset = answer.json()["version"]["id"], answer.json()["version"]["dataset_id"]
    download = admin.get(f"datasets/{dataset}/versions/{version}/content")
    assert download.content == data
    assert download.headers["content-type"] == "application/octet-stream"  # no browser shows it, nor guesses
    assert download.headers["x-content-type-options"] == "nosniff"
    assert download.headers["content-disposition"] == "attachment"
    assert admin.get(f"datasets/{dataset}/schema/{version}").status_code == 200
    assert not Path("/tmp/a-pickle-ran").exists()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("unharmed")
def test_parquet_with_a_few_wrong_bytes_is_refused_or_kept(seed: int, admin: httpx.Client) -> None:
    answer = commit_file(admin, bombs.scrambled_footer(seed), dataset="kept", name="x.parquet")
    assert answer.status_code in (201, 422), answer.text


def test_four_slow_files_at_once_are_taken_one_after_another(victim: serving.Served, admin: httpx.Client) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: commit_file(admin, b"a" * (5 * MB), name="x.csv").status_code, range(6)))
    assert answers == [422] * 6
    assert admin.get(victim.url + "/health", timeout=SAFETY).status_code == 200


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("what", "name", "make"),
    [
        ("a sheet of 1.9 GB of blanks", "x.xlsx", lambda: bombs.unfolding_sheet(1900 * MB)),
        ("a sheet of 3 GB of blanks that says so", "x.xlsx", lambda: bombs.unfolding_sheet(3 * GB)),
        ("a sheet of 3 GB of blanks that does not", "x.xlsx", lambda: bombs.undeclared_sheet(3 * GB)),
        ("a billion equal values", "x.parquet", lambda: bombs.many_equal_values(1000, statistics=False)),
        ("a value of 1.9 GB", "x.parquet", lambda: bombs.one_long_value(1900 * MB)),
        ("60,000 columns", "x.parquet", lambda: bombs.many_columns(60_000)),
        ("a CSV of 200,000 columns", "x.csv", lambda: bombs.wide_csv(200_000)),
        ("JSON of a million levels", "x.json", lambda: bombs.deep_json(10**6)),
        ("a gzip of 4 GB as JSON", "x.json", lambda: bombs.gzip_bomb(4 * GB - 1)),
    ],
)
def test_heavier_bombs_are_borne(
    what: str, name: str, make: Callable[[], bytes], victim: serving.Served, admin: httpx.Client
) -> None:
    data = make()
    assert victim.process is not None
    before, begun = _stored(victim), processor_seconds(victim.process.pid)
    with watched(victim.process.pid) as memory:
        answer = commit_file(admin, data, dataset="heavy", name=name)
    seconds = processor_seconds(victim.process.pid) - begun
    print(
        f"\n{what} ({len(data):,} bytes): {answer.status_code} in {seconds:.1f} s, server {memory['server'] >> 20} MB, "
        f"worker {memory['worker'] >> 20} MB: {answer.json().get('detail', 'kept')[:150]}"
    )
    assert answer.status_code in (201, 422)
    if answer.status_code == 422:
        assert _stored(victim) == before
    assert seconds < SECONDS
    assert memory["server"] < SERVER
    assert memory["worker"] < isolated.MEMORY + 200 * MB
    assert admin.get(victim.url + "/health", timeout=SAFETY).status_code == 200


# --- names ---------------------------------------------------------------------------------------------------------

NOWHERE = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "a/../../b",
    "a//b",
    "C:\\x",
    "a\\b",
    "a\x00b",
    "a\u202egpj.exe",
    "a\u200bb",
    "a\r\nX-Evil: 1",
    "a\nb",
    "a%2fb",
    "%2e%2e/x",
    " a",
    "a ",
    "-rf",
    "~root",
    "$(id)",
    "a;b",
    "a|b",
    "'; DROP TABLE users; --",
    "*",
    "a" * 100_000,
]
HARMLESS = ["CON", "aux", "NUL.txt", "é", "e\u0301", "日本", "con/prn", "__proto__", "v1x", "true", "0"]


@pytest.mark.parametrize("name", NOWHERE, ids=lambda name: repr(name[:20]))
def test_names_that_lead_elsewhere_are_refused(name: str, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    for path, body in (
        ("datasets", {"name": name}),
        ("datasets/1/branches", {"pointer_name": name}),
        ("datasets/1/tags", {"pointer_name": name}),
        ("users", {"name": name}),
        ("branches", {"name": name}),
        ("protections", {"name": name}),
    ):
        # a dataset of such a name is only looked for where a branch of it should be protected
        found = problem(
            admin.post(path, json=body),
            404 if path == "protections" and "\x00" not in name and len(name) < 1000 else 422,
        )
        assert found["code"] in ("invalid_name", "invalid_input", "invalid_ref", "not_found")
        assert len(found["detail"]) < 3000
    for path in ("datasets", "audit"):
        assert admin.get(path, params={"name": name[:1000], "dataset": name[:1000]}).status_code in (200, 404, 422)
    assert _stored(victim) == before


@pytest.mark.parametrize("name", HARMLESS)
def test_names_that_only_look_dangerous_are_names(name: str, victim: serving.Served, admin: httpx.Client) -> None:
    answer = admin.post("datasets", json={"name": f"names/{name}"})
    assert answer.status_code in (201, 409)  # é is é, however it is written
    assert admin.get("datasets", params={"name": f"names/{name}"}).status_code == 200
    assert admin.post("datasets/1/tags", json={"pointer_name": name}).status_code in (201, 409)
    folder = victim.owner.access.store.scratch.parent
    assert not [path for path in folder.rglob("*") if name.partition("/")[0] == path.name]  # no name is a path


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "C:\\con", "%2e%2e", "*", "~", "a/b", "CON"])
def test_components_may_be_called_anything_visible_and_go_nowhere(
    name: str, victim: serving.Served, admin: httpx.Client, tmp_path: Path
) -> None:
    answer = commit_file(admin, name.encode(), dataset="components", component_name=name, name=name)
    assert answer.status_code == 201, answer.text
    (tmp_path / "in").mkdir()
    found = victim.owner.dataset("components").version().checkout(tmp_path / "in")
    assert all((tmp_path / "in").resolve() in Path(path).resolve().parents for path in found)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


@pytest.mark.parametrize("name", ["a\x00b", "a\u202eb", "a\r\nb", "a" * 1_000_000, "", " "])
def test_components_with_invisible_names_are_refused(name: str, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    problem(commit_file(admin, b"x", component_name=name), 422)
    assert _stored(victim) == before


@pytest.mark.parametrize(
    "name",
    ["../../x.csv", "/etc/x.csv", "a\u202evsc.csv", "CON.csv", "x.csv\u0000.bin", "x" * 900 + ".csv", "a\r\nX: y.csv"],
)
def test_names_of_files_tell_the_format_and_nothing_else(
    name: str, victim: serving.Served, admin: httpx.Client
) -> None:
    answer = commit_file(admin, b"id\n1\n", dataset="files", name=name)
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        assert answer.json()["written"][0]["format"] == "csv"
    folder = victim.owner.access.store.scratch.parent
    assert not [path for path in folder.rglob("*") if path.suffix == ".csv"]


@pytest.mark.parametrize("name", [b"../../x", b"a\\x00b", b"\xff\xfe", b"%0d%0aX: y", b'a"; x="y', b"a" * 100_000])
def test_names_in_the_headers_of_a_form_are_borne(name: bytes, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    head = b'--B\r\nContent-Disposition: form-data; name="' + name + b'"; filename="' + name + b'"\r\n\r\n'
    answer = admin.post(
        "datasets/1/versions",
        content=head + b"abc\r\n--B--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=B"},
    )
    assert answer.status_code in (201, 400, 422), answer.text
    if answer.status_code != 201:
        problem(answer, answer.status_code)
        assert _stored(victim) == before


@pytest.mark.parametrize(
    "path", ["%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fx", "a%00b", "%c0%ae%c0%ae/x", "%ff", "a%0d%0ab"]
)
def test_paths_that_lead_elsewhere_lead_nowhere(path: str, victim: serving.Served, admin: httpx.Client) -> None:
    for prefix in ("", "v1/", "v1/datasets/", "v1/datasets/1/branches/", "v1/files/", "v1/uploads/"):
        raw = _raw(
            admin, f"GET /{prefix}{path} HTTP/1.1\r\n{_token(admin)}Host: x\r\nConnection: close\r\n\r\n".encode()
        )
        assert raw.split(b" ")[1] in (b"404", b"422", b"400", b"405"), raw[:300]
        assert b"root:" not in raw


@pytest.mark.parametrize("text", ["a\nX-Evil: 1", "a\u2028b", "\u202e", "\\x1b[31m", "{{7*7}}", "<script>", "é" * 1000])
def test_texts_come_back_as_they_were_and_in_no_header(text: str, admin: httpx.Client) -> None:
    answer = admin.patch("datasets/1", json={"description": text})
    assert (answer.status_code, answer.json()["description"]) == (200, text)
    wanted = {"dataset_name": "texts", "message": text, "overwrite": True, "components": []}
    wanted["components"] = [{"component_name": "x", "content": {"part": "f"}}]
    answer = admin.post("commits?dataset_name=texts", data={"commit": json.dumps(wanted)}, files={"f": text.encode()})
    assert answer.json()["version"]["message"] == text
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("text", ["\x1b[31m", "a\rb", "a\0b", "\x9b2J"], ids=ascii)
def test_texts_that_control_a_terminal_are_refused(text: str, admin: httpx.Client) -> None:
    problem(admin.patch("datasets/1", json={"description": text}), 422)
    problem(admin.post("commits?dataset_name=texts", data={"message": text}, files={"x": b"x"}), 422)
    problem(admin.post("tokens", json={"name": text}), 422)


# --- numbers, keys, depth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata_json",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": ' + bombs.deep_json(100_000) + b"}",
        b'{"a": ' + bombs.deep_json(300) + b"}",
        b"[1]",
    ],
    ids=lambda text: text[:20].decode(errors="replace"),
)
@pytest.mark.usefixtures("unharmed")
def test_metadata_that_is_no_json_is_refused(metadata_json: bytes, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    parts = b'{"dataset_name": "m", "components": [{"component_name": "x", "content": {"part": "f"}, "metadata": '
    form = b'--B\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nabc\r\n'
    form += (
        b'--B\r\nContent-Disposition: form-data; name="commit"\r\n\r\n' + parts + metadata_json + b"}]}\r\n--B--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    problem(admin.post("commits?dataset_name=m", content=form, headers=headers), 422)
    assert _stored(victim) == before


@pytest.mark.parametrize(
    "metadata_json", [b'{"a": ' + b"9" * 4000 + b"}", b'{"a": 1, "a": 2}', b'{"\\u0000": "\\u0000"}']
)
def test_metadata_that_is_odd_comes_back(metadata_json: bytes, admin: httpx.Client) -> None:
    upload = admin.post("uploads", json={}).json()["upload_id"]
    body = (
        b'{"dataset_name": "odd", "overwrite": true, "components": [{"component_name": "x", "content": {"upload_id": "'
    )
    body += upload.encode() + b'"}, "metadata": ' + metadata_json + b"}]}"
    answer = admin.post("commits", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        version = answer.json()["version"]
        there = admin.get(f"datasets/{version['dataset_id']}/versions/{version['id']}/components")
        assert there.json()["items"][0]["metadata"] == json.loads(metadata_json)


@pytest.mark.parametrize(
    "body",
    [
        bombs.deep_json(100_000),
        b"[" * 1_000_000,
        b'{"name": "a", "description": ' + b"9" * 5000 + b"}",
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b'{"\\ud800": 1, "name": "a"}',
        b"\xff\xfe{}",
        b"null",
        b'"a"',
        b"",
        b'{"name": "a"} trailing',
        b"{'name': 'a'}",
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
@pytest.mark.usefixtures("unharmed")
def test_json_that_is_none_is_refused(body: bytes, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    answer = admin.post("datasets", content=body, headers={"Content-Type": "application/json"})
    problem(answer, answer.status_code)
    assert answer.status_code in (400, 422)
    assert _stored(victim) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "sweep/apply",
            b'{"objects": [{"key": "%s", "size": 0, "modified": 1e999}], "listed": 0, "listed_bytes": 0, '
            b'"suspicion": null}' % (b"0" * 64 + b"." + b"0" * 32),
        ),
        ("sweep/plan", b'{"max_share": NaN}'),
        ("verify", b'{"share": [9, 3]}'),
        ("verify", b'{"older_than_seconds": 99999999999999999999}'),
        ("expire/plan", b'{"rules": [{"last": 1e3}], "live_runs": ["x"]}'),
        ("expire/plan", b'{"rules": [{"datasets": "[a-", "branches": "**((("}]}'),
        ("expire/apply", b'{"plan": {"datasets": [], "bytes": 9007199254740993}}'),
        ("tokens", b'{"lasts_seconds": 9223372036854775807}'),
        ("contents/known", b'{"hashes": ["' + b"A" * 64 + b'"]}'),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else value,
)
def test_numbers_and_patterns_beyond_all_reason_are_no_mistake_of_the_server(
    path: str, body: bytes, admin: httpx.Client
) -> None:
    answer = admin.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unharmed")
def test_json_that_is_too_large_is_refused_while_it_comes(victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    for path in ("datasets", "commits", "datasets/1/versions", "contents/known"):
        for kind in ("application/json", "application/octet-stream", "text/plain"):
            with suppress(httpx.TransportError):  # it may hang up on us before all was sent
                body = (b" " * MB for _ in range(80))
                problem(admin.post(path, content=body, headers={"Content-Type": kind}), 413)
            declared = {"Content-Type": kind, "Content-Length": str(10 * GB)}
            head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\n{_token(admin)}{_lines(declared)}\r\n"
            assert _raw(admin, head.encode()).startswith(b"HTTP/1.1 413")
    assert _stored(victim) == before


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("token", [True, False])
def test_a_large_body_of_somebody_unknown_is_not_read(token: bool, victim: serving.Served, admin: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x", **({} if token else {"Authorization": "Bearer x"})}
    for path in ("datasets", "users") if token else ("datasets", "users", "commits", "datasets/1/versions"):
        with suppress(httpx.TransportError):
            answer = admin.post(path, content=(b" " * MB for _ in range(300)), headers=headers)
            assert answer.status_code in (401, 413)


@pytest.mark.usefixtures("unharmed")
def test_two_content_types_do_not_lift_the_limit(victim: serving.Served, admin: httpx.Client) -> None:
    both = "Content-Type: application/json\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    head = f"POST /v1/commits HTTP/1.1\r\nHost: x\r\n{_token(admin)}{both}Content-Length: {400 * MB}\r\n\r\n"
    with _connected(admin) as connection, suppress(OSError):
        connection.sendall(head.encode())
        for _ in range(400):
            connection.sendall(b" " * MB)
        connection.recv(1000)
    assert victim.process is not None
    assert high_water(victim.process.pid) < SERVER


def test_many_large_texts_of_a_form_are_refused(victim: serving.Served, admin: httpx.Client) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n'
    body = (piece for n in range(25) for piece in (part % n, *[b"x" * MB] * 30, b"\r\n"))
    with suppress(httpx.TransportError):
        answer = admin.post(
            "commits?dataset_name=a", content=body, headers={"Content-Type": "multipart/form-data; boundary=B"}
        )
        assert answer.status_code in (400, 413, 422)
    assert victim.process is not None
    assert high_water(victim.process.pid) < SERVER + 8 * 32 * MB  # this many texts, so large, a form has at most


@pytest.mark.usefixtures("unharmed")
def test_a_form_of_very_many_parts_is_refused(victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    for options in (b"", b'; filename="f"'):
        part = b'--B\r\nContent-Disposition: form-data; name="f%d"' + options + b"\r\n\r\nx\r\n"
        body = b"".join(part % n for n in range(10_000)) + b"--B--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        answer = admin.post("datasets/1/versions", content=body, headers=headers)
        problem(answer, answer.status_code)
        assert answer.status_code in (400, 413, 422)
    assert _stored(victim) == before


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--B\r\n\r\n--B--"),
        ("multipart/form-data; boundary=", b"--B--"),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"--B"),
        ("multipart/form-data; boundary=B", b"--C\r\n\r\nx\r\n--C--"),
        (
            "multipart/form-data; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n\r\nno end',
        ),
        ("multipart/form-data; boundary=B", b"--B\r\nNo-Disposition: x\r\n\r\nx\r\n--B--\r\n"),
        ("multipart/form-data; boundary=" + "B" * 10_000, b"x"),
        ("multipart/form-data; boundary=\xe9", b"x"),
        (
            "multipart/form-data; charset=utf-99; boundary=B",
            b'--B\r\nContent-Disposition: form-data; name="m"\r\n\r\nx\r\n--B--\r\n',
        ),
        ("multipart/mixed; boundary=B", b"--B--"),
        ("multipart/form-data; boundary=B", b"--B\r\n" + b"X: y\r\n" * 10_000 + b"\r\nx\r\n--B--\r\n"),
        ("multipart/form-data; boundary=B", b"--B\r\nX: " + b"y" * 10**6 + b"\r\n\r\nx\r\n--B--\r\n"),
    ],
    ids=range(13),
)
def test_forms_that_are_none_are_refused(kind: str, body: bytes, victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    for path in ("datasets/1/versions", "commits?dataset_name=a"):
        answer = admin.post(path, content=body, headers={"Content-Type": kind.encode("latin-1")})
        problem(answer, answer.status_code)
        assert answer.status_code in (400, 413, 422)
    assert _stored(victim) == before


def test_a_body_shorter_than_announced_does_nothing(victim: serving.Served, admin: httpx.Client) -> None:
    before = _stored(victim)
    body = b'{"name": "short"}'
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\n{_token(admin)}{_lines(SHORT)}\r\n"
    with _connected(admin) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    with _connected(admin) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")  # after 2 seconds of silence
    assert _stored(victim) == before


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Content-Length : 5\r\n",
        "X: a\x00b\r\n",
        "X" * 70_000 + ": y\r\n",
        "X: " + "y" * 200_000 + "\r\n",
        "X: y\r\n" * 20_000,
    ],
    ids=lambda text: repr(text[:40]),
)
@pytest.mark.usefixtures("unharmed")
def test_requests_that_two_servers_could_read_differently_are_refused(
    framing: str, victim: serving.Served, admin: httpx.Client
) -> None:
    before = _stored(victim)
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\n{_token(admin)}Content-Type: application/json\r\n{framing}\r\n"
    hidden = f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\n{_token(admin)}Content-Length: 15\r\n\r\n" + '{"name": "evil"}'
    raw = _raw(admin, head.encode("latin-1") + b"0\r\n\r\n" + hidden.encode())
    assert not raw or raw.split(b" ")[1] in (b"400", b"413", b"422", b"431", b"501"), raw[:200]
    assert _stored(victim) == before


@pytest.mark.parametrize("method", ["FOO", "dr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "CONNECT", "TRACE", "get", "G" * 500])
def test_methods_that_there_are_not_are_counted_as_one(
    method: str, victim: serving.Served, admin: httpx.Client
) -> None:
    raw = _raw(admin, f"{method} /v1/datasets HTTP/1.1\r\nHost: x\r\n{_token(admin)}Connection: close\r\n\r\n".encode())
    assert not raw or raw.split(b" ")[1] in (b"400", b"404", b"405"), raw[:200]
    assert f'method="{method}"' not in admin.get(victim.url + "/metrics").text


def test_a_client_that_sends_a_byte_now_and_then_holds_nobody_up(victim: serving.Served, admin: httpx.Client) -> None:
    connections = [_connected(admin) for _ in range(20)]  # fewer than the share of a user
    try:
        head = f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\n{_token(admin)}{_lines(SHORT)}\r\n"
        for connection in connections:
            connection.sendall(head.encode())
        for _ in range(3):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b"{")
            assert admin.get("whoami", timeout=SAFETY).status_code == 200
            sleep(0.2)
        assert all(connection.recv(100).startswith(b"HTTP/1.1 408") for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_never_finishes_its_headers_is_hung_up_on(victim: serving.Served, admin: httpx.Client) -> None:
    with _connected(admin) as connection:
        connection.sendall(b"GET /v1/datasets HTTP/1.1\r\nHost: x\r\nX: ")
        answer = b""
        with suppress(ConnectionError):
            for _ in range(5):
                sleep(0.3)
                connection.sendall(b"y")  # a byte now and then does not help
            answer = connection.recv(100)  # BODY_SECONDS is 2 here
        assert answer in (b"", b"HTTP/1.1 400 Bad Request\r\n")
    assert admin.get("whoami").status_code == 200  # who is between two requests may stay


@pytest.mark.long
def test_hundreds_of_unfinished_requests_hold_nobody_up(victim: serving.Served, admin: httpx.Client) -> None:
    connections = [_connected(admin) for _ in range(400)]
    try:
        for connection in connections:
            connection.sendall(b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nX: ")
        assert admin.get(victim.url + "/health", timeout=SAFETY).status_code == 200
        assert commit_file(admin, b"id\n77\n", dataset="a", name="a.csv").status_code == 201
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.usefixtures("unharmed")
def test_a_parquet_part_that_is_another_table_than_the_first_is_refused(
    victim: serving.Served, admin: httpx.Client
) -> None:
    before = _stored(victim)
    first, other = (bombs.parquet(pa.table({name: [1]})) for name in "ab")
    parts = [{"part": "p1"}, {"part": "p2"}]
    wanted = {"dataset_name": "parts", "components": [{"component_name": "x", "parts": parts}]}
    for files in ({"p1": first, "p2": other}, {"p1": first, "p2": b"PAR1PAR1"}, {"p1": first, "p2": b""}):
        answer = admin.post("commits?dataset_name=parts", data={"commit": json.dumps(wanted)}, files=files)
        problem(answer, 422)
    bad_types = {**wanted, "components": [{"component_name": "x", "parts": parts[:1], "user_types": "\x01{"}]}
    answer = admin.post("commits?dataset_name=parts", data={"commit": json.dumps(bad_types)}, files={"p1": first})
    assert answer.status_code in (201, 422), answer.text
    assert answer.status_code == 201 or _stored(victim) == before


def test_what_was_refused_was_a_problem_each_time(victim: serving.Served, admin: httpx.Client) -> None:
    """The kind of answer that strangers get: nothing of the inside."""
    answer = admin.get("files/999999")
    assert answer.headers["content-type"] == PROBLEM
    assert "server" not in answer.headers
    assert struct.calcsize("P") == 8  # the limits of memory are meant for 64 bits
    assert victim.process is not None
    assert victim.process.poll() is None


# --- helpers -------------------------------------------------------------------------------------------------------


def _token(http: httpx.Client) -> str:
    return f"Authorization: {http.headers['Authorization']}\r\n"


def _lines(headers: dict[str, Any]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _connected(http: httpx.Client) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=SAFETY)


def _raw(http: httpx.Client, data: bytes) -> bytes:
    """What is answered to these bytes first, nothing if it hung up."""
    with _connected(http) as connection:
        with suppress(OSError):
            connection.sendall(data)
        with suppress(OSError):
            return connection.recv(4000)
    return b""
