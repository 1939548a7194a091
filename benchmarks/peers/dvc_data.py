"""dvc-data, DVC's store of content by hash, without DVC's metafiles and git."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

from dvc_data.hashfile.build import build
from dvc_data.hashfile.checkout import checkout as check_out
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.state import State
from dvc_data.hashfile.transfer import transfer
from dvc_objects.fs.local import LocalFileSystem

FACTS = {"versions": {"dvc-data": version("dvc-data")}}
_local = LocalFileSystem()
_kept = {}


@cache
def _open(folder):
    Path(folder).mkdir(parents=True)
    state = State(root_dir=str(Path(folder).parent), tmp_dir=f"{folder}/state")
    return LocalHashFileDB(_local, f"{folder}/objects", state=state, type=["copy"])


def _add(folder, source):
    store = _open(folder)
    yield
    staged, _, found = build(store, source, _local, "md5")
    transfer(staged, store, {found.hash_info}, shallow=False)
    _kept.setdefault(folder, found)
    yield


def store(folder, file):
    """A file."""
    return _add(folder, file)


again = untouched = store


def many(folder, files):
    """A folder of files."""
    return _add(folder, files)


many_again = many


def checkout(folder, files, target):
    """The folder, copied."""
    store = _open(folder)
    yield
    check_out(target, _local, _kept[folder], store)
    yield


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _add(folder, whole)


def write(folder, table):
    """The Parquet file of a table."""
    return _add(folder, table)
