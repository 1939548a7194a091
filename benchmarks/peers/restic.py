"""restic: chunks of about 1 MB, packed and encrypted."""

import itertools
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_restic_path = Path(os.environ["BENCHMARK_ENVIRONMENT"]) / "usr/bin/restic"
_counter = itertools.count()
os.environ |= {"RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(Path(os.environ["BENCHMARK_HOME"]) / "restic")}


def _restic(*arguments, cwd=None):
    called = [_restic_path, *arguments]
    return subprocess.run(called, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, cwd=cwd).stdout


FACTS = {"versions": {"restic": _restic("version").split()[1]}}


@cache
def _open(folder):
    if not Path(folder).exists():
        _restic("-r", folder, "init")
    return folder


def _backup(folder, source):
    """A snapshot of a file or folder."""
    repository, source = _open(folder), Path(source)
    yield
    _restic("-r", repository, "backup", "--quiet", source.name, cwd=source.parent)
    yield


def store(folder, file):
    """A file."""
    return _backup(folder, file)


again = untouched = store


def many(folder, files):
    """A folder of files."""
    return _backup(folder, files)


many_again = many


def checkout(folder, files, target):
    """The newest snapshot."""
    yield
    _restic("-r", folder, "restore", "latest", "--target", target)
    yield


def commit(folder):
    """A small file."""
    source = Path(f"{folder}.txt")
    source.write_text(f"content {next(_counter)}")
    return _backup(folder, source)


def log(folder, count):
    """The snapshots."""
    yield
    found = json.loads(_restic("-r", folder, "snapshots", "--json"))
    yield {"versions": len(found[:count])}


def write(folder, table):
    """The Parquet file of a table."""
    return _backup(folder, table)


def read(folder, **options):
    """Restored, then read."""
    import pyarrow.parquet as pq  # not earlier: processes inherit the peak of the memory of who starts them

    target = Path(f"{folder}.out")
    yield
    _restic("-r", folder, "restore", "latest", "--target", target)
    (path,) = target.iterdir()
    found = pq.read_table(path, **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Restored, then two columns read."""
    return read(folder, columns=columns, filters=[(column, ">", above)])


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _backup(folder, whole)
