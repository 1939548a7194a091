"""The one door: a registry is a catalog and a store, opened by somebody."""

import getpass
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from dataset_registry.catalog import Catalog, sqlite_url
from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import InputError
from dataset_registry.model.names import split_address
from dataset_registry.model.records import FileRecord, RegistryBranch
from dataset_registry.operations import adopt as adoption
from dataset_registry.operations import datasets, find, refs, stored
from dataset_registry.operations.access import Access
from dataset_registry.store import Compression, LocalCopies, Store, open_store
from dataset_registry.version import Version


class Registry:
    """Datasets and their versions, in one place."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        catalog: str | None = None,
        store: str | Store | None = None,
        actor: str | None = None,
        compression: Compression | None = None,
    ) -> "Registry":
        """Open a registry: in a folder (SQLite and files, made on first use), or by the URLs of its catalog and store.

        `catalog` is `sqlite:///…` or `postgresql+psycopg://…`; `store` a folder, a `file://` URL, `s3://bucket/prefix`,
        `gs://…` or `az://…`; `actor` who commits (the operating system's user when None). `compression="zstd"` compresses
        new CSV and JSON files where that pays; readers see the content either way.

        Raises `CatalogOutdated` for a PostgreSQL catalog that needs
        `dataset-registry db upgrade`, `InputError`.
        """
        if folder is not None:
            root = Path(folder).expanduser().absolute()
            catalog = catalog or sqlite_url(root / "catalog.sqlite")
            store = store or str(root)
        if catalog is None or store is None:
            raise InputError(
                "Say where the registry is: Registry.open('folder'), or Registry.open(catalog='postgresql+psycopg://…', "
                "store='folder')."
            )
        opened = Catalog(catalog)
        try:
            opened.ready()
        except BaseException:
            opened.close()
            raise
        kept = open_store(store) if isinstance(store, str) else store
        return cls(Access(opened, kept, LocalCopies(kept), actor or _user(), compression))

    @property
    def actor(self) -> str:
        """Who commits through this registry."""
        return self._access.actor

    @property
    def location(self) -> str:
        """Where the registry is: catalog (without its password) and store."""
        return f"{self._access.catalog.address} + {self._access.store.location}"

    def close(self) -> None:
        """Give back database connections, and local copies of remote files: their paths are good until here.

        The registry connects again when it is used again.
        """
        self._access.catalog.close()
        self._access.copies.close()

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- datasets --------------------------------------------------------------------------------------------------

    def create_dataset(self, name: str, *, description: str | None = None) -> Dataset:
        """Make a dataset. Raises `InvalidName`, `AlreadyExists`."""
        return Dataset(self._access, datasets.create(self._access, name, description))

    def dataset(self, name: str) -> Dataset:
        """The dataset of this name. Raises `NotFound`."""
        return Dataset(self._access, datasets.get(self._access, name))

    def datasets(self, *, prefix: str = "") -> list[Dataset]:
        """The datasets whose name starts with `prefix`, by name."""
        return [Dataset(self._access, record) for record in datasets.list_all(self._access, prefix)]

    def draft(self, name: str, branch: str = find.MAIN, *, description: str | None = None, **options: Any) -> Draft:
        """A draft of a dataset that is made with it when there is none of this name yet; `options` as in `Dataset.draft`.

        A commit that fails leaves no dataset behind. Raises `InvalidName`.
        """
        return Draft(self._access, datasets.find_or_new(self._access, name, description), branch, **options)

    def version(self, address: str) -> Version:
        """The version at an address such as `raw/flights@main~2`; without `@`, the head of `main`."""
        name, ref = split_address(address)
        return self.dataset(name).version(find.MAIN if ref is None else ref)

    # --- files -----------------------------------------------------------------------------------------------------

    def file(self, content_hash: str) -> FileRecord:
        """A stored file by the beginning of its SHA-256, with its size and reference count. Raises `NotFound`."""
        return stored.file(self._access, content_hash)

    def files(self) -> Iterator[FileRecord]:
        """Every stored file, oldest first."""
        return stored.list_all(self._access)

    # --- branches over all datasets --------------------------------------------------------------------------------

    def create_branch(self, name: str, source: str = find.MAIN) -> int:
        """Branch every dataset that has the branch `source`, at once; how many those are."""
        return refs.create_everywhere(self._access, name, source)

    def delete_branch(self, name: str) -> int:
        """Delete a registry-wide branch in every dataset; how many those were. Versions stay."""
        return refs.delete_everywhere(self._access, name)

    def branches(self) -> list[RegistryBranch]:
        """The registry-wide branches, by name."""
        return refs.list_everywhere(self._access)

    # --- legacy catalogs -------------------------------------------------------------------------------------------

    def adopt(self) -> "adoption.Adoption":
        """Take the bytes of a legacy catalog into the store: hashed, deduplicated, counted. Can be repeated."""
        return adoption.adopt(self._access)

    def __repr__(self) -> str:
        return f"<Registry {self.location} as {self.actor}>"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return "owner"
