"""DVC as people use it: `dvc add` and `git commit`. What it stores is what `dvc_api` stores, and measured there."""

import itertools
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

FACTS = {"versions": {name: version(name) for name in ("dvc", "dvc-data")}}
_counter = itertools.count()
os.environ |= {f"GIT_{who}_{what}": "benchmark" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
os.environ |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "DVC_NO_ANALYTICS": "1"}
os.environ |= {"DVC_SITE_CACHE_DIR": f"{os.environ['BENCHMARK_HOME']}/dvc", "HOME": os.environ["BENCHMARK_HOME"]}


def _run(folder, *called):
    return subprocess.run(called, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, cwd=folder).stdout


@cache
def _open(folder):
    Path(folder).mkdir(parents=True)
    _run(folder, "git", "init", "--quiet")
    _run(folder, "dvc", "init", "--quiet")
    _run(folder, "dvc", "config", "cache.type", "hardlink,copy")
    return Path(folder)


def _add(folder, source, name):
    """Copied into the work tree beforehand, then added and committed."""
    target = _open(folder) / name
    target.unlink(missing_ok=True)
    (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, target)
    yield
    _run(folder, "dvc", "add", "--quiet", name)
    _commit(folder)
    yield


def _commit(folder):
    _run(folder, "git", "add", ".")
    _run(folder, "git", "commit", "--quiet", "--allow-empty", "-m", "version")


def store(folder, file):
    """A file."""
    return _add(folder, file, "data.parquet")


def again(folder, file):
    """The same content under another name."""
    return _add(folder, file, "again.parquet")


def untouched(folder, file):
    """The same path."""
    yield
    _run(folder, "dvc", "add", "--quiet", "data.parquet")
    yield


def many(folder, files):
    """A folder of files."""
    return _add(folder, files, "files")


def many_again(folder, files):
    """The same files under another name."""
    return _add(folder, files, "again")


def checkout(folder, files, target):
    """The folder, after it was gone."""
    shutil.rmtree(Path(folder) / "files")
    yield
    _run(folder, "dvc", "checkout", "--quiet", "files.dvc")
    yield


def commit(folder):
    """A small file."""
    target = _open(folder) / "small.bin"
    target.unlink(missing_ok=True)
    target.write_text(f"content {next(_counter)}")
    yield
    _run(folder, "dvc", "add", "--quiet", "small.bin")
    _commit(folder)
    yield


def branch(folder, name):
    """A branch of git."""
    yield
    _run(folder, "git", "branch", name)
    yield


def tag(folder, name):
    """A tag of git."""
    yield
    _run(folder, "git", "tag", name)
    yield


def log(folder, count):
    """The log of git."""
    yield
    found = _run(folder, "git", "log", f"-{count}", "--format=%H %an %ad %s").splitlines()
    yield {"versions": len(found)}


def write(folder, table):
    """The Parquet file of a table."""
    return _add(folder, table, "data.parquet")


def read(folder, **options):
    """The file in the work tree."""
    import pyarrow.parquet as pq  # not earlier: processes inherit the peak of the memory of who starts them

    yield
    found = pq.read_table(Path(folder) / "data.parquet", **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of the file in the work tree."""
    return read(folder, columns=columns, filters=[(column, ">", above)])
