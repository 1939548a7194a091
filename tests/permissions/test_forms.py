"""Who may read content in each form in which it is stored, by each way that leads to it: cells, and none of them wrong."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import numpy as np
import pyarrow as pa
import pytest

from dataset_registry import Registry
from dataset_registry.model.records import FileRecord
from dataset_registry.tabular import chunking
from tests.serving import Served

FORMS = ("whole file", "recipe", "pack", "table", "part", "part as a recipe")


@dataclass
class Shelf:
    """A server over a registry with a file in each form, and somebody of each kind to ask for it."""

    served: Served
    files: dict[str, FileRecord] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    """The dataset to which each one may write."""


SUBJECTS: dict[str, dict[str, object]] = {
    "administrator": {"role": "administrator"},
    "reader": {"grants": [("read", "secret/data")]},
    "reader of the prefix": {"grants": [("read", "secret/")]},
    "writer": {"grants": [("write", "secret/data")]},
    "stranger": {},
    "guest": {"role": "guest"},
    "reader of another": {"grants": [("read", "other")]},
    "reader by a token for others": {"grants": [("read", "secret/data")], "token": {"prefix": "own/"}},
    "reader of the table": {"file": "table"},
    "reader of the part": {"file": "part"},
    "reader of the whole file": {"file": "whole file"},
}


def reads(subject: str, form: str) -> bool:
    """What was granted, and nothing else. A pack is nobody's: only who may read everything sees it."""
    if subject == "administrator":
        return True
    if form == "pack":
        return False
    if subject in ("reader", "reader of the prefix", "writer"):
        return True
    return {
        "reader of the table": ("table", "part as a recipe"),  # the other part is one of an older table
        "reader of the part": ("part",),
        "reader of the whole file": ("whole file",),
    }.get(subject, ()).__contains__(form)


def fill(owner: Registry) -> dict[str, FileRecord]:
    """A file in each form, in `secret/data`."""
    data = owner.create_dataset("secret/data")
    owner.create_dataset("other").commit({"data": b"nothing of theirs"})
    rows = 200_000
    random = np.random.default_rng(1)
    table = pa.table(
        {"id": np.arange(rows), "v": random.integers(0, 1 << 50, rows), "w": random.integers(0, 1 << 50, rows)}
    )
    data.commit({"whole": b"a whole file" * 30_000, "table": table}, key=["id"])
    changed = table.set_column(2, "w", pa.array(random.integers(0, 1 << 50, rows)))
    data.commit({"table": changed}, key=["id"], message="one column changed")
    data.commit({f"small/{n}": f"small {n}".encode() * 20 for n in range(20)})
    listed = list(owner.files())
    components = {c.name: c.content_hash for c in data.version().components}
    by_hash = {file.content_hash: file for file in listed}
    parts = _parts(owner, by_hash[components["table"]])
    first = _parts(owner, by_hash[data.version("v1").components_named(["table"])[0].content_hash])
    return {
        "whole file": by_hash[components["whole"]],
        "recipe": by_hash[components["small/0"]],
        "pack": next(file for file in listed if file.form == "pack"),
        "table": by_hash[components["table"]],
        "part": next(part for part in first if part.form == "whole"),
        "part as a recipe": next(part for part in parts if part.form == "ranges"),
    }


def _parts(owner: Registry, table: FileRecord) -> list[FileRecord]:
    from dataset_registry.operations import files

    return files.data_files(owner.access, table.id)


@pytest.fixture(scope="module")
def shelf(request: pytest.FixtureRequest, sqlite_template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:  # type: ignore[no-untyped-def]
    from tests import serving

    folder = tmp_path_factory.mktemp("forms")
    catalog = folder / "catalog.sqlite"
    catalog.write_bytes(sqlite_template.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "PART_BYTES", 8 << 20)
        with serving.in_thread(catalog=f"sqlite:///{catalog}", store=str(folder / "store"), seal_seconds=0) as served:
            owner = served.owner
            found = Shelf(served, fill(owner))
            for subject, facts in SUBJECTS.items():
                user = subject.replace(" ", "-")
                owner.create_user(user, role=str(facts.get("role", "member")))
                owner.create_dataset(f"own/{user}")
                owner.grant(user, "write", f"own/{user}")
                for permission, name in facts.get("grants", ()):  # type: ignore[attr-defined]
                    owner.grant(user, permission, name)
                if "file" in facts:
                    owner.grant(user, "read", file=str(found.files[str(facts["file"])].content_hash))
                found.clients[subject] = served.http(user, **facts.get("token", {}))  # type: ignore[arg-type]
                found.own[subject] = owner.dataset(f"own/{user}").id
            yield found
            for client in found.clients.values():
                client.close()


def _commit(client: httpx.Client, own: int, component: dict[str, object]) -> bool:
    body = {"components": [{"component_name": "x", **component}], "branch": "main", "overwrite": True}
    answer = client.post(f"datasets/{own}/versions", json=body)
    assert answer.status_code in (201, 404, 422), answer.text
    return answer.status_code == 201


def _listed(client: httpx.Client, file: FileRecord) -> bool:
    found, cursor = [], None
    while True:
        page = client.get("files", params={"limit": 1000, **({"cursor": cursor} if cursor else {})}).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return file.id in found


WAYS: dict[str, Callable[[httpx.Client, int, FileRecord], bool]] = {
    "by id": lambda c, own, f: c.get(f"files/{f.id}").status_code == 200,
    "its objects": lambda c, own, f: c.get(f"files/{f.id}/data-files").status_code == 200,
    "its content": lambda c, own, f: c.get(f"files/{f.id}/content").status_code in (200, 422),
    "a range of it": lambda c, own, f: (
        c.get(f"files/{f.id}/content", headers={"Range": "bytes=0-3"}).status_code in (206, 422)
    ),
    "by hash": lambda c, own, f: c.get("files", params={"content_hash": f.content_hash}).status_code == 200,
    "by a prefix of the hash": lambda c, own, f: (
        c.get("files", params={"content_hash": str(f.content_hash)[:12]}).status_code == 200
    ),
    "in the list": lambda c, own, f: _listed(c, f),
    "known": lambda c, own, f: (
        c.post("contents/known", json={"hashes": [f.content_hash]}).json()["known"] == [f.content_hash]
    ),
}
COMMITS: dict[str, Callable[[httpx.Client, int, FileRecord], bool]] = {
    "committed by its hash": lambda c, own, f: _commit(c, own, {"content": {"content_hash": f.content_hash}}),
    "committed as a part": lambda c, own, f: _commit(c, own, {"parts": [{"content_hash": f.content_hash}]}),
}


def test_every_form_is_read_by_those_who_may_and_by_nobody_else(shelf: Shelf) -> None:
    assert set(shelf.files) == set(FORMS)
    wrong: list[str] = []
    cells = 0
    for subject, client in shelf.clients.items():
        for form, file in shelf.files.items():
            expected = reads(subject, form)
            for way, ask in WAYS.items():
                cells += 1
                if ask(client, shelf.own[subject], file) != expected:
                    wrong.append(f"{subject}: {form} {way}: {'denied' if expected else 'allowed'}")
            for way, ask in COMMITS.items():
                if subject == "reader by a token for others" or form == "pack":
                    continue
                cells += 1
                table = form in ("part", "part as a recipe")
                may = expected and (table if way == "committed as a part" else form != "table")
                if ask(client, shelf.own[subject], file) != may:
                    wrong.append(f"{subject}: {form} {way}: {'denied' if may else 'allowed'}")
    print(f"{cells} cells, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


def test_a_pack_is_committed_by_nobody(shelf: Shelf) -> None:
    file = shelf.files["pack"]
    for subject, client in shelf.clients.items():
        for ask in COMMITS.values():
            assert not ask(client, shelf.own[subject], file), subject
