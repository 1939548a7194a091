"""`registry://raw/flights@main/data.parquet`: versions as a file system of fsspec, for pandas, polars, pyarrow, Dask, DuckDB.

A path is a dataset, `@`, a ref, and the path of a file of that version (see `Version.files`). A slash in the name of a branch or
a tag may be written `%2F`. What is written to a branch is committed when its file is closed, or all together at the end of
`with fs.transaction:`. Versions and tags are looked up once; a branch is looked up whenever a file is opened or listed.
"""

import errno
import logging
import os
import re
import sys
import tempfile
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple
from urllib.parse import quote, unquote

from fsspec.spec import AbstractFileSystem
from fsspec.transaction import Transaction

from dataset_registry.connection import Connection
from dataset_registry.dataset import Dataset
from dataset_registry.errors import (
    AlreadyExists,
    InputError,
    InvalidRef,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RegistryFrozen,
    StorageError,
    TagImmutable,
)
from dataset_registry.model.names import parse_ref
from dataset_registry.model.records import VersionFile
from dataset_registry.registry import Registry
from dataset_registry.tabular.formats import format_of
from dataset_registry.version import Version

_log = logging.getLogger(__name__)
PROTOCOL = "registry"
_MOST_TREES = 64
"""Versions whose files are remembered."""

_OS_ERRORS: Mapping[type[Exception], tuple[type[OSError], int]] = {
    NotFound: (FileNotFoundError, errno.ENOENT),
    InvalidRef: (FileNotFoundError, errno.ENOENT),
    AlreadyExists: (FileExistsError, errno.EEXIST),
    PermissionDenied: (PermissionError, errno.EACCES),
    NotAuthenticated: (PermissionError, errno.EACCES),
    TagImmutable: (OSError, errno.EROFS),
    RegistryFrozen: (OSError, errno.EROFS),
    StorageError: (OSError, errno.EIO),
}


class _Place(NamedTuple):
    """A parsed path: a dataset and what its ref and path begin with, or the beginning of datasets' names."""

    dataset: str
    rest: str | None


class _Tree:
    """The files of a version by path, and the names in each of its folders."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.files = {file.path: file for file in version.files()}
        self.folders: dict[str, dict[str, bool]] = {"": {}}
        for path in self.files:
            below, is_file, is_known = path, True, False
            while below and not is_known:
                parent, _, name = below.rpartition("/")
                is_known = name in self.folders.setdefault(parent, {})
                self.folders[parent][name] = is_file
                below, is_file = parent, False


@contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """Raise the registry's errors as those of the operating system that callers of a file system expect."""
    try:
        yield
    except tuple(_OS_ERRORS) as error:
        kind, number = next(_OS_ERRORS[known] for known in type(error).__mro__ if known in _OS_ERRORS)
        raise kind(number, str(error), path) from error


class _Change:
    """What a transaction does to a path: a file with its new content, or None to remove it."""

    def __init__(self, fs: "RegistryFileSystem", path: str, content: Path | None) -> None:
        self.fs = fs
        self.path = path
        self.content = content

    def commit(self) -> None:
        """Commit this change alone."""
        self.fs.commit([self])

    def discard(self) -> None:
        """Drop the new content."""
        if self.content is not None:
            self.content.unlink(missing_ok=True)


class _Writing(RawIOBase):
    """A file that is being written, in the temporary folder; it is committed when it is closed, unless a transaction does so.

    It is dropped instead if it is closed by an exception that was raised after it was opened (in its own `with` block, or in that
    of a wrapper or a writer of another library), or if it is never closed.
    """

    def __init__(self, fs: "RegistryFileSystem", path: str, *, autocommit: bool) -> None:
        handle, name = tempfile.mkstemp(prefix="dataset-registry-")
        self._file = os.fdopen(handle, "wb")
        self._change = _Change(fs, path, Path(name))
        self._autocommit = autocommit
        self._handled = sys.exc_info()[1]

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._file.close()
        raised = sys.exc_info()[1]
        if raised is not None and raised is not self._handled:
            _log.warning("%s was not written: %r was raised before it was closed", self._change.path, raised)
            self.discard()
        elif self._autocommit:
            self.commit()

    def __del__(self) -> None:
        if not self.closed:
            _log.warning("%s was not written: it was never closed", self._change.path)
            super().close()
            self._file.close()
            self.discard()

    def commit(self) -> None:
        """Commit what was written, alone."""
        self._change.commit()

    def discard(self) -> None:
        """Drop what was written; a transaction goes on without it."""
        self._change.discard()
        transaction = self._change.fs._transaction
        if transaction is not None and self in transaction.files:
            transaction.files.remove(self)

    @property
    def change(self) -> _Change:
        """The change that this file is."""
        return self._change


class _Reading(BufferedReader):
    """A file that is read. Readers of file systems, Arrow's among them, do not always close it."""

    def __del__(self) -> None:
        self.close()


class RegistryTransaction(Transaction):  # type: ignore[misc]  # fsspec has no types
    """Changes that become one version of each branch that they are for."""

    def complete(self, commit: bool = True) -> None:
        """Commit all changes, or drop them."""
        fs, files = self.fs, list(self.files)
        changes = [getattr(file, "change", file) for file in files]
        self.files.clear()
        fs._intrans = False
        fs._transaction = None
        try:
            if commit and (open_ones := [file for file in files if isinstance(file, _Writing) and not file.closed]):
                path = open_ones[0].change.path
                raise InputError(f"{path} is still open. Close it before the transaction ends. Nothing was committed.")
            if commit:
                fs.commit(changes)
        finally:
            for change in changes:
                change.discard()


class RegistryFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The registry as a file system.

    Where it is comes from the environment (`DATASET_REGISTRY` and its kin) or from the storage options `location` (a folder, or
    the address of a server), or `catalog` and `store`, with `actor` or `token`. `message` is that of the versions it commits.
    """

    protocol: ClassVar[str] = PROTOCOL
    root_marker: ClassVar[str] = ""
    transaction_type = RegistryTransaction

    def __init__(
        self,
        location: str | None = None,
        catalog: str | None = None,
        store: str | None = None,
        actor: str | None = None,
        token: str | None = None,
        message: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._connection = Connection(location, catalog, store, actor, token)
        self._message = message
        self._opened: Registry | None = None
        self._trees: OrderedDict[tuple[int, int], _Tree] = OrderedDict()
        self._fixed: dict[tuple[int, str], tuple[int, int]] = {}
        self._seen: dict[tuple[int, str], deque[tuple[int, int]]] = {}

    @property
    def fsid(self) -> str:
        """The address of the registry, without secrets."""
        return f"{PROTOCOL}_{self._registry.location}"

    @property
    def _registry(self) -> Registry:
        found = self._connection.open()
        if found is not self._opened:  # fsspec keeps instances, and the environment may say another registry by now
            self._forget()
            self._opened = found
        return found

    def _forget(self) -> None:
        self._trees.clear()
        self._fixed.clear()
        self._seen.clear()

    # --- paths -----------------------------------------------------------------------------------------------------

    def _place(self, path: str) -> _Place:
        name, at, rest = self._strip_protocol(path).partition("@")
        return _Place(name.strip("/"), re.sub("/+", "/", rest).strip("/") if at else None)

    def _split(self, dataset: Dataset, rest: str) -> tuple[str, str]:
        """The ref that `rest` begins with, and the path behind it. A branch or tag with slashes may be written with them."""
        first, _, path = rest.partition("/")
        if not path:
            return unquote(first), ""
        slashed = {pointer.name for pointer in (*dataset.branches(), *dataset.tags()) if "/" in pointer.name}
        found = [name for name in slashed if f"{rest}/".startswith(f"{name}/")]
        with suppress(NotFound, InvalidRef):
            if found:
                dataset.version(first)
                found.append(first)
        if len(found) > 1:
            written = " or ".join(f"{dataset.name}@{_quoted(name)}/…" for name in sorted(found))
            raise InputError(
                f"{dataset.name}@{rest} can be read as several refs: {', '.join(sorted(found))}. Write {written}"
            )
        if not found:
            return unquote(first), path
        return found[0], rest[len(found[0]) + 1 :]

    def _tree(self, dataset: Dataset, ref: str) -> _Tree:
        """The files that a ref names now."""
        fixed = self._fixed.get((dataset.id, ref))
        if fixed is not None and fixed in self._trees:
            self._trees.move_to_end(fixed)
            return self._trees[fixed]
        version = dataset.version(ref)
        key = (dataset.id, version.number)
        if key not in self._trees:
            self._trees[key] = _Tree(version)
            while len(self._trees) > _MOST_TREES:
                self._trees.popitem(last=False)
        if _is_number(ref) or any(tag.name == ref for tag in dataset.tags()):
            self._fixed[dataset.id, ref] = key
        seen = self._seen.setdefault((dataset.id, ref), deque(maxlen=_MOST_TREES))
        if key not in seen:
            seen.append(key)
        return self._trees[key]

    def _found(self, path: str) -> tuple[_Tree, str]:
        """The version that a path is in, and the path in it."""
        place = self._place(path)
        if place.rest is None:
            raise IsADirectoryError(errno.EISDIR, f"A file is under a ref: {place.dataset}@main/…", path)
        dataset = self._registry.dataset(place.dataset)
        ref, inner = self._split(dataset, place.rest)
        tree = self._tree(dataset, ref)
        if inner not in tree.files and inner not in tree.folders:
            # A part of a table that was listed before the branch moved: its name has its hash.
            for key in self._seen.get((dataset.id, ref), ()):
                before = self._trees.get(key)
                if before is not None and inner in before.files and before.files[inner].is_part:
                    return before, inner
            raise FileNotFoundError(errno.ENOENT, f"{tree.version} has no {inner!r}", path)
        return tree, inner

    # --- reading ---------------------------------------------------------------------------------------------------

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """What is at a path; a file's `content_hash` is its SHA-256, and `created` the time of its version."""
        path = self._strip_protocol(path)
        place = self._place(path)
        with _os_errors(path):
            if place.rest is None:
                if place.dataset and not self._below(place.dataset):
                    raise FileNotFoundError(
                        errno.ENOENT, f"There is no dataset {place.dataset!r} and none below it", path
                    )
                return _folder(path)
            tree, inner = self._found(path)
            return _file(path, tree.version, tree.files[inner]) if inner in tree.files else _folder(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """The files and folders in a folder of a version; above it the refs of a dataset, and datasets."""
        path = self._strip_protocol(path)
        place = self._place(path)
        with _os_errors(path):
            if place.rest is None:
                listed = [_folder(name) for name in self._listed(place.dataset)]
                if not listed and place.dataset:
                    raise FileNotFoundError(
                        errno.ENOENT, f"There is no dataset {place.dataset!r} and none below it", path
                    )
            else:
                tree, inner = self._found(path)
                listed = list(_entries(path, tree, inner))
        return listed if detail else [entry["name"] for entry in listed]

    def _below(self, name: str) -> list[Dataset]:
        """The dataset of a name and those below it."""
        return [d for d in self._registry.datasets(prefix=name) if d.name == name or d.name.startswith(f"{name}/")]

    def _listed(self, name: str) -> list[str]:
        """The folders in a folder that is the beginning of datasets' names."""
        found: dict[str, None] = {}
        for dataset in self._below(name) if name else self._registry.datasets():
            if dataset.name == name:
                pointers = (*dataset.branches(), *dataset.tags())
                found |= dict.fromkeys(f"{name}@{_quoted(pointer.name)}" for pointer in pointers)
            else:
                below = dataset.name[len(name) :].lstrip("/").split("/")[0]
                found[f"{name}/{below}" if name else below] = None
        return sorted(found)

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **options: Any) -> Any:
        path = self._strip_protocol(path)
        if mode == "rb":
            return self._reading(path)
        if mode not in ("wb", "xb"):
            raise ValueError(f"A file of a version is read (rb) or written whole (wb, xb), not opened with {mode!r}.")
        if mode == "xb" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "It exists already", path)
        with _os_errors(path):
            self._target(path)
        return _Writing(self, path, autocommit=autocommit)

    def _reading(self, path: str) -> BinaryIO:
        with _os_errors(path):
            tree, inner = self._found(path)
            if inner not in tree.files:
                raise IsADirectoryError(
                    errno.EISDIR, "It is a folder: a table in several parts, or a path of files", path
                )
            found = tree.version.open_file(tree.files[inner])
            return _Reading(found.detach()) if isinstance(found, BufferedReader) else found

    def created(self, path: str) -> datetime:
        """When the version of a file was committed."""
        with _os_errors(path):
            return self._found(path)[0].version.created_at

    modified = created

    def checksum(self, path: str) -> str:
        """The SHA-256 of a file."""
        return str(self.info(path)["content_hash"])

    ukey = checksum

    # --- writing ---------------------------------------------------------------------------------------------------

    def _target(self, path: str) -> tuple[str, str, str]:
        """The dataset, the branch and the path that are written to."""
        place = self._place(path)
        if place.rest is None:
            raise InputError(f"{path} names no branch. Write to {place.dataset}@main/…")
        first, _, inner = place.rest.partition("/")
        branch = unquote(first)
        with suppress(NotFound):
            branch, inner = self._split(self._registry.dataset(place.dataset), place.rest)
        if not inner:
            raise InputError(f"{path} names no file. Write to {path}/data.parquet, for example.")
        return place.dataset, branch, inner

    def commit(self, changes: Sequence[_Change]) -> None:
        """Commit changes: one version for each branch, one after the other. A later change of a path replaces an earlier one.

        All contents are read before the first commit.
        """
        by_branch: dict[tuple[str, str], dict[str, _Change]] = {}
        try:
            for change in changes:
                with _os_errors(change.path):
                    dataset, branch, inner = self._target(change.path)
                by_branch.setdefault((dataset, branch), {})[inner] = change
            with ExitStack() as drafts:
                for (dataset, branch), by_path in by_branch.items():
                    drafts.enter_context(_os_errors(f"{dataset}@{_quoted(branch)}"))
                    self._fill(drafts, dataset, branch, by_path)
        finally:
            for change in changes:
                change.discard()

    def _fill(self, drafts: ExitStack, dataset: str, branch: str, by_path: Mapping[str, _Change]) -> None:
        """Begin a draft with the changes of a branch, which is committed at the end of `drafts`."""
        known: Mapping[str, VersionFile] = {}
        with suppress(NotFound):
            known = self._tree(self._registry.dataset(dataset), branch).files
        tables: dict[str, list[str]] = {}
        for path, file in known.items():
            if file.is_part:
                tables.setdefault(path.rpartition("/")[0], []).append(path)
        draft = drafts.enter_context(self._registry.draft(dataset, branch, message=self._message))
        removed = {path for path, change in by_path.items() if change.content is None}
        for path, change in by_path.items():
            folder = path.rpartition("/")[0]
            if folder in tables and (change.content is not None or not removed.issuperset(tables[folder])):
                raise InputError(
                    f"{dataset}@{_quoted(branch)}/{path} is in the folder of a table in {len(tables[folder])} parts, which is "
                    f"written and removed as a whole. Write the table to {folder}, or remove that folder.",
                    path=path,
                )
            there = known.get(tables[path][0] if path in tables else path)
            if change.content is not None:
                name, index = (there.component, there.index) if there else (path, 0)
                draft.add(name, change.content, index=index, format=format_of(None, path, b""), replace=True)
            elif there is not None and (folder not in tables or path == tables[folder][0]):
                draft.remove(there.component, index=there.index)

    @contextmanager
    def _as_one(self) -> Iterator[None]:
        """Commit what is changed in this block as one version."""
        with nullcontext() if self._intrans else self.transaction:
            yield

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, in one version."""
        if isinstance(path, str) and not recursive and self.isfile(path):  # its name may look like a pattern
            self._rm(path)
            return
        with self._as_one():
            for found in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
                if self.isfile(found):
                    self._rm(found)

    def _rm(self, path: str) -> None:
        change = _Change(self, self._strip_protocol(path), None)
        if self._intrans:
            self.transaction.files.append(change)
        else:
            change.commit()

    def rm_file(self, path: str) -> None:
        """Remove one file."""
        with _os_errors(path):
            self._found(path)
        self._rm(path)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy one file. Its content is not stored again. Raises `InputError` for one of several parts of a table."""
        if self.isdir(path1):
            return
        with _os_errors(path1):
            tree, inner = self._found(path1)
        if inner in tree.files and tree.files[inner].is_part:
            raise InputError(
                f"{path1} is one of several parts of a table, which is copied as a whole: with dataset.draft() as draft: "
                f"draft.concatenate(…, [(version, {tree.files[inner].component!r})]).",
                path=path1,
            )
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            for block in iter(partial(source.read, 1 << 20), b""):
                target.write(block)

    def copy(self, *arguments: Any, **options: Any) -> None:
        """Copy files, in one version."""
        with self._as_one():
            super().copy(*arguments, **options)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Move files, in one version."""
        if isinstance(path1, str) and isinstance(path2, str) and self._is_same(path1, path2):
            return
        with self._as_one():
            super().copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise")
            self.rm(path1, recursive=recursive)

    def _is_same(self, path1: str, path2: str) -> bool:
        """Whether two paths are written to the same place, however they are spelled."""
        if self._strip_protocol(path1) == self._strip_protocol(path2):
            return True
        with suppress(InputError):
            return self._target(path1) == self._target(path2)
        return False

    def put(self, *arguments: Any, **options: Any) -> None:
        """Write local files, in one version."""
        with self._as_one():
            super().put(*arguments, **options)

    def pipe(self, path: Any, value: Any = None, **options: Any) -> None:
        """Write bytes to a path, or to several, in one version."""
        with self._as_one():
            super().pipe(path, value, **options)

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:
        """Make an empty file."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Nothing: a folder is there as long as a file is in it."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as long as a file is in it."""

    def rmdir(self, path: str) -> None:
        """Nothing: a folder is gone with its last file."""

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget the files of versions and what tags name."""
        self._forget()
        super().invalidate_cache(path)


def _is_number(ref: str) -> bool:
    parsed = parse_ref(ref)
    return parsed.kind == "number" and not parsed.steps


def _quoted(ref: str) -> str:
    """A ref as one segment of a path."""
    return quote(ref, safe="~^+=")


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _file(path: str, version: Version, file: VersionFile) -> dict[str, Any]:
    return {
        "name": path,
        "size": file.size,
        "type": "file",
        "content_hash": file.content_hash,
        "component": file.component,
        "version": version.number,
        "created": version.created_at,
    }


def _entries(path: str, tree: _Tree, inner: str) -> Iterator[dict[str, Any]]:
    """What is in a folder of a version, or the file itself."""
    if inner in tree.files:
        yield _file(path, tree.version, tree.files[inner])
        return
    for name, is_file in tree.folders[inner].items():
        below = f"{path}/{name}"
        yield _file(below, tree.version, tree.files[f"{inner}/{name}".lstrip("/")]) if is_file else _folder(below)
