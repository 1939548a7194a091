"""BorgBackup, without encryption: chunks of 2 MB, in segments that are synced."""

import itertools
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_root = Path(os.environ["BENCHMARK_ENVIRONMENT"]) / "usr"
_counter = itertools.count()
os.environ |= {
    "PYTHONPATH": str(_root / "lib/python3/dist-packages"),
    "BORG_BASE_DIR": str(Path(os.environ["BENCHMARK_HOME"]) / "borg"),
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
}


def _borg(*arguments, cwd=None):
    called = ["/usr/bin/python3", _root / "bin/borg", *arguments]
    return subprocess.run(called, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, cwd=cwd).stdout


FACTS = {"versions": {"borg": _borg("--version").split()[1]}}


@cache
def _open(folder):
    if not Path(folder).exists():
        _borg("init", "--encryption=none", folder)
    return folder


def _create(folder, source):
    """An archive of a file or folder."""
    repository = f"{_open(folder)}::a{next(_counter)}"
    source = Path(source)
    yield
    _borg("create", repository, source.name, cwd=source.parent)
    yield


def store(folder, file):
    """A file."""
    return _create(folder, file)


again = untouched = store


def many(folder, files):
    """A folder of files."""
    return _create(folder, files)


many_again = many


def checkout(folder, files, target):
    """The first archive."""
    Path(target).mkdir()
    archive = f"{folder}::{_first(folder)}"
    yield
    _borg("extract", archive, cwd=target)
    yield


def _first(folder):
    return _borg("list", "--short", "--first", "1", folder).strip()


def commit(folder):
    """A small file."""
    source = Path(f"{folder}.txt")
    source.write_text(f"content {next(_counter)}")
    return _create(folder, source)


def log(folder, count):
    """The archives."""
    yield
    found = _borg("list", "--short", folder).split()
    yield {"versions": len(found[:count])}


def write(folder, table):
    """The Parquet file of a table."""
    return _create(folder, table)


def read(folder, **options):
    """Extracted, then read."""
    import pyarrow.parquet as pq  # not earlier: processes inherit the peak of the memory of who starts them

    target = Path(f"{folder}.out")
    target.mkdir(exist_ok=True)
    first = _first(folder)
    yield
    _borg("extract", f"{folder}::{first}", cwd=target)
    (path,) = target.iterdir()
    found = pq.read_table(path, **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Extracted, then two columns read."""
    return read(folder, columns=columns, filters=[(column, ">", above)])


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _create(folder, whole)
