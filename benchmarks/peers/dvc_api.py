"""DVC by its Python library, without a process for every step: `Repo.add` and a commit of git."""

import itertools
import os
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path

os.environ |= {"DVC_NO_ANALYTICS": "1", "HOME": os.environ["BENCHMARK_HOME"]}
os.environ |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
os.environ |= {"DVC_SITE_CACHE_DIR": f"{os.environ['BENCHMARK_HOME']}/dvc"}
os.environ |= {f"GIT_{who}_{what}": "benchmark" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from dvc.repo import Repo  # it reads these on import
from scmrepo.git import Git

FACTS = {"versions": {name: version(name) for name in ("dvc", "dvc-data")}}
_counter = itertools.count()


@cache
def _open(folder):
    Path(folder).mkdir(parents=True)
    Git.init(folder).close()
    repository = Repo.init(folder)
    with repository.config.edit() as config:
        config["cache"]["type"] = ["hardlink", "copy"]
    repository.close()
    return Repo(folder)


def _add(folder, source, name):
    """Copied into the work tree beforehand, then added and committed."""
    repository, target = _open(folder), Path(folder) / name
    target.unlink(missing_ok=True)
    (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, target)
    yield
    _commit(repository, target)
    yield


def _commit(repository, target):
    repository.add([str(target)])
    repository.scm.add([f"{target}.dvc", str(target.parent / ".gitignore")])
    repository.scm.commit("version")


def store(folder, file):
    """A file."""
    return _add(folder, file, "data.parquet")


def again(folder, file):
    """The same content under another name."""
    return _add(folder, file, "again.parquet")


def untouched(folder, file):
    """The same path."""
    repository = _open(folder)
    yield
    repository.add([str(Path(folder) / "data.parquet")])
    yield


def many(folder, files):
    """A folder of files."""
    return _add(folder, files, "files")


def many_again(folder, files):
    """The same files under another name."""
    return _add(folder, files, "again")


def checkout(folder, files, target):
    """The folder, after it was gone."""
    repository = _open(folder)
    shutil.rmtree(Path(folder) / "files")
    yield
    repository.checkout([str(Path(folder) / "files.dvc")])
    yield


def commit(folder):
    """A small file."""
    repository, target = _open(folder), Path(folder) / "small.bin"
    target.unlink(missing_ok=True)
    target.write_text(f"content {next(_counter)}")
    yield
    _commit(repository, target)
    yield


def branch(folder, name):
    """A branch of git."""
    repository = _open(folder)
    yield
    repository.scm.branch(name)
    yield


def tag(folder, name):
    """A tag of git."""
    repository = _open(folder)
    yield
    repository.scm.tag(name)
    yield


def log(folder, count):
    """The commits of git, each looked up."""
    repository = _open(folder)
    yield
    found, revision = [], repository.scm.get_rev()
    while revision and len(found) < count:
        found.append(repository.scm.resolve_commit(revision))
        revision = next(iter(found[-1].parents), None)
    yield {"versions": len(found)}


def write(folder, table):
    """The Parquet file of a table."""
    return _add(folder, table, "data.parquet")


def read(folder, **options):
    """The file where DVC says that it is."""
    repository = _open(folder)
    yield
    with repository.dvcfs.open("data.parquet", "rb") as stream:
        found = pq.read_table(stream, **options)
    yield {"rows": found.num_rows}


def read_filtered(folder, columns, column, above):
    """Two columns of it."""
    return read(folder, columns=columns, filters=ds.field(column) > above)


def change(folder, kind, whole, rows, keys):
    """The changed file."""
    return _add(folder, whole, "data.parquet")
