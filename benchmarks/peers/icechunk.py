"""Icechunk: versions of arrays. It takes part in what is about versions; it stores neither files nor tables of rows."""

import itertools
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import icechunk
import zarr

FACTS = {"versions": {name: version(name) for name in ("icechunk", "zarr")}}
_counter = itertools.count()


@cache
def _open(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(folder))


def commit(folder):
    """One attribute of a group."""
    repository = _open(folder)
    value = next(_counter)
    yield
    session = repository.writable_session("main")
    zarr.open_group(session.store, mode="a").attrs["value"] = value
    session.commit("value")
    yield


def branch(folder, name):
    """A branch at the head."""
    repository = _open(folder)
    head = repository.lookup_branch("main")
    yield
    repository.create_branch(name, head)
    yield


def tag(folder, name):
    """A tag at the head."""
    repository = _open(folder)
    head = repository.lookup_branch("main")
    yield
    repository.create_tag(name, head)
    yield


def log(folder, count):
    """The newest snapshots."""
    repository = _open(folder)
    yield
    found = list(itertools.islice(repository.ancestry(branch="main"), count))
    yield {"versions": len(found)}


def client(folder, branch, seconds):
    """Commits of an attribute, again after every conflict."""
    repository = _open(folder)
    name = branch or "main"
    attribute = f"value-{os.getpid()}"
    done, until = 0, monotonic() + seconds
    yield
    if branch:
        repository.create_branch(name, repository.lookup_branch("main"))
    while monotonic() < until:
        session = repository.writable_session(name)
        zarr.open_group(session.store, mode="a").attrs[attribute] = done
        try:
            session.commit("value")
            done += 1
        except icechunk.ConflictError:
            pass
    yield {"commits": done}
