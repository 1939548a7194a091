"""git with Git LFS: whole files in a store of their own, pointers to them in git."""

import itertools
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

_counter = itertools.count()
os.environ |= {f"GIT_{who}_{what}": "benchmark" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
os.environ |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def _git(folder, *arguments):
    called = ["git", "-C", folder, *arguments]
    return subprocess.run(called, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True).stdout


FACTS = {
    "versions": {
        "git-lfs": _git(".", "lfs", "version").split()[0].removeprefix("git-lfs/"),
        "git": _git(".", "--version").split()[2],
    }
}


@cache
def _open(folder):
    Path(folder).mkdir(parents=True)
    _git(folder, "init", "--quiet")
    _git(folder, "lfs", "install", "--local")
    _git(folder, "lfs", "track", "*.parquet", "*.bin")
    return folder


def _add(folder, source, name):
    """Copied into the work tree beforehand, then added and committed."""
    target = Path(_open(folder)) / name
    (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, target)
    yield
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "version")
    yield


def store(folder, file):
    """A file."""
    return _add(folder, file, "data.parquet")


def again(folder, file):
    """The same content under another name."""
    return _add(folder, file, "again.parquet")


def many(folder, files):
    """A folder of files."""
    return _add(folder, files, "files")


def many_again(folder, files):
    """The same files under other names."""
    return _add(folder, files, "again")


def checkout(folder, files, target):
    """Another work tree, with files from the store."""
    yield
    _git(folder, "worktree", "add", "--detach", "--quiet", target)
    yield


def commit(folder):
    """A small file."""
    (Path(_open(folder)) / "small.bin").write_text(f"content {next(_counter)}")
    yield
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "-m", "version")
    yield


def branch(folder, name):
    """A branch at the head."""
    yield
    _git(folder, "branch", name)
    yield


def tag(folder, name):
    """A tag at the head."""
    yield
    _git(folder, "tag", name)
    yield


def log(folder, count):
    """The newest commits."""
    yield
    found = _git(folder, "log", f"-{count}", "--format=%H %an %ad %s").splitlines()
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


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _add(folder, whole, "data.parquet")
