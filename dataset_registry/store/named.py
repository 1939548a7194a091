"""Small named objects beside those of a store, for what several servers share: uploads under way."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from dataset_registry.errors import CorruptionError

if TYPE_CHECKING:
    from dataset_registry.store.objects import ObjectStore


class Named(NamedTuple):
    """A named object: its name, its size in bytes, when it was written (seconds since 1970)."""

    name: str
    size: int
    modified: float


class NamedObjects:
    """Objects under `<prefix>/<folder>/<name>` of a bucket. Names may have slashes. Raises the errors of the store."""

    def __init__(self, store: "ObjectStore", folder: str) -> None:
        self._store, self._folder = store, folder

    def add(self, name: str, content: bytes) -> bool:
        """Write an object. Returns False, and changes nothing, if there is one with this name."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._store.errors(name):
            try:
                obstore.put(self._store.client, self._path(name), content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """The content of an object, None if there is none."""
        import obstore

        try:
            with self._store.errors(name):
                return bytes(obstore.get(self._store.client, self._path(name)).bytes())
        except CorruptionError:
            return None

    def list(self, folder: str = "") -> Iterator[Named]:
        """The objects under a folder, by name."""
        import obstore

        above = self._path("")
        with self._store.errors(None):
            for page in obstore.list(self._store.client, self._path(folder), chunk_size=1000):
                for found in page:
                    yield Named(found["path"].removeprefix(above), found["size"], found["last_modified"].timestamp())

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        import obstore

        try:
            with self._store.errors(name):
                obstore.delete(self._store.client, self._path(name))
        except CorruptionError:
            return

    def _path(self, name: str) -> str:
        return self._store.path_beside(f"{self._folder}/{name}")
