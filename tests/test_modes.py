"""Who on this machine may read the files of a registry: whatever the umask is, the mode of its folder decides."""

import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_registry import Registry
from dataset_registry.store.process_dirs import abandoned
from tests.serving import Served, in_thread

BIG = os.urandom(1 << 17)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, set[str]]:
    """The modes that the folders and the files below a folder have."""
    found: dict[str, set[str]] = {"folders": set(), "files": set()}
    for path in [root, *root.rglob("*")]:
        mode = oct(stat.S_IMODE(path.stat().st_mode))
        found["folders" if path.is_dir() else "files"].add(mode)
    return found


def use(root: Path, tmp_path: Path) -> dict[str, set[str]]:
    """Do all that makes files in a registry; the modes of what there is while it is open."""
    source = tmp_path / "source.csv"
    source.write_bytes(b"a,b\n" + b"1,2\n" * 50_000)
    own = tmp_path / "own.bin"
    own.write_bytes(BIG)
    own.chmod(0o400)
    with Registry.open(root, compression="zstd") as registry:
        draft = registry.draft("raw/flights", trust_stat=True)
        with draft:
            draft.add("small", b"x")
            draft.add("big", io.BytesIO(BIG + b"1"))
            draft.add("compressed", source)
            draft.add("linked", own)
        version = registry.version("raw/flights")
        assert version.paths("compressed")
        os.utime(source, (1e9, 1e9))
        with registry.draft("raw/flights", trust_stat=True) as draft:
            draft.add("compressed", source)
        registry.version("raw/flights").checkout(tmp_path / "out")
        assert {"objects", "cache", "spool", "seen.sqlite"} <= {path.name for path in root.iterdir()}
        found = modes(root)
    own.chmod(0o600)
    return found


@pytest.mark.usefixtures("umask")
def test_a_new_registry_is_private(tmp_path: Path) -> None:
    found = use(tmp_path / "registry", tmp_path)
    assert found == {"folders": {"0o700"}, "files": {"0o600", "0o400"}}
    assert modes(tmp_path / "registry") == {"folders": {"0o700"}, "files": {"0o600", "0o400"}}


@pytest.mark.usefixtures("umask")
def test_an_open_folder_that_is_not_marked_as_shared_holds_a_private_registry(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    root.chmod(0o777)
    use(root, tmp_path)
    root.chmod(0o700)
    assert modes(root) == {"folders": {"0o700"}, "files": {"0o600", "0o400"}}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("bits", "files"), [(0o2770, {"0o660", "0o440"}), (0o2775, {"0o664", "0o444"}), (0o2750, {"0o640", "0o440"})]
)
def test_a_folder_with_the_setgid_bit_holds_a_shared_registry(tmp_path: Path, bits: int, files: set[str]) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    root.chmod(bits)
    use(root, tmp_path)
    found = modes(root)
    assert found == {"folders": {oct(bits)}, "files": files}


@pytest.mark.usefixtures("umask")
def test_nobody_but_the_owner_and_the_group_writes(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    root.chmod(0o2777)
    use(root, tmp_path)
    root.chmod(0o2775)
    assert modes(root) == {"folders": {"0o2775"}, "files": {"0o664", "0o444"}}


@pytest.mark.objects
@pytest.mark.usefixtures("umask")
def test_a_registry_that_exists_stays_as_open_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    with Registry.open(root) as registry:
        registry.create_dataset("raw/flights").commit({"data": b"1"})
    for path in [root, *root.rglob("*")]:
        path.chmod(0o775 if path.is_dir() else 0o664 if "catalog" in path.name else 0o444)
    shutil.rmtree(root / "spool", ignore_errors=True)
    use(root, tmp_path)
    assert modes(root) == {"folders": {"0o775"}, "files": {"0o664", "0o444"}}


@pytest.mark.usefixtures("umask")
def test_what_is_checked_out_follows_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    use(tmp_path / "registry", tmp_path)
    assert modes(tmp_path / "out") == {"folders": {oct(0o777 & ~umask)}, "files": {oct(0o666 & ~umask)}}


@pytest.mark.usefixtures("umask")
def test_copies_of_a_remote_store_are_private(tmp_path: Path, s3_url: str) -> None:
    with Registry.open(catalog=f"sqlite:///{tmp_path}/here/catalog.sqlite", store=s3_url) as registry:
        registry.create_dataset("raw/flights").commit({"data": BIG})
        assert registry.version("raw/flights").paths()
        assert modes(tmp_path / "cache") == {"folders": {"0o700"}, "files": {"0o600", "0o400"}}
    assert modes(tmp_path / "here") == {"folders": {"0o700"}, "files": {"0o600"}}


@pytest.mark.usefixtures("umask")
def test_uploads_under_way_are_private(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    Registry.open(root).close()
    with in_thread(catalog=f"sqlite:///{root}/catalog.sqlite", store=str(root)) as served:
        begun = upload(served)
        assert modes(root / "uploads") == {"folders": {"0o700"}, "files": {"0o600"}}
        commit(served, begun)
    assert modes(root) == {"folders": {"0o700"}, "files": {"0o600", "0o400"}}


def test_uploads_under_way_are_shared_with_the_registry(tmp_path: Path) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    root.chmod(0o2770)
    Registry.open(root).close()
    with in_thread(catalog=f"sqlite:///{root}/catalog.sqlite", store=str(root)) as served:
        begun = upload(served)
        assert modes(root / "uploads") == {"folders": {"0o2770"}, "files": {"0o660"}}
        commit(served, begun)
    assert modes(root) == {"folders": {"0o2770"}, "files": {"0o660", "0o440"}}


def upload(served: Served) -> str:
    with served.http() as http:
        answer = http.post("uploads", json={"file_size": len(BIG)}).json()
        http.patch(f"uploads/{answer['upload_id']}", content=BIG, headers={"Upload-Offset": "0"}).raise_for_status()
    return str(answer["upload_id"])


def commit(served: Served, upload_id: str) -> None:
    component = {"component_name": "data", "content": {"upload_id": upload_id}}
    with served.http() as http:
        http.post("commits", json={"dataset_name": "raw/x", "components": [component]}).raise_for_status()


def test_a_copy_of_another_user_that_cannot_be_linked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Linux links a file of another user only for who may write to it (fs.protected_hardlinks).
    source = tmp_path / "source.csv"
    source.write_bytes(b"a,b\n" + b"1,2\n" * 50_000)
    with Registry.open(tmp_path, compression="zstd") as registry:
        version = registry.create_dataset("raw/flights").commit({"data": source})
        version.paths()
    (copy,) = (tmp_path / "cache").glob("??/*")
    link = os.link

    def protected(source: Path, target: Path) -> None:
        if source == copy:
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", protected)
    with Registry.open(tmp_path) as registry:
        (path,) = registry.version("raw/flights").paths()
        assert path.read_bytes() == source.read_bytes()
        assert path.stat().st_ino != copy.stat().st_ino


def test_the_private_folder_of_another_user_is_not_tidied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine-other"
    folder.mkdir()
    os.utime(folder, (1e9, 1e9))
    assert list(abandoned(tmp_path, "mine-")) == [folder]

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert list(abandoned(tmp_path, "mine-")) == []
