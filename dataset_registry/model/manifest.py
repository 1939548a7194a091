"""Manifests: the sorted list of a version's components, split into pages by name, and its Merkle digest.

Format `manifest/1` (pinned by test vectors in tests/model/test_manifest.py; docs/design/manifest-pages.md says why):

* Entries are sorted by the UTF-8 bytes of the component name, then by index.
* A page ends after an entry whose border hash (salted SHA-256 of the key) is 0 modulo 64, or after 256 entries.
  Pages are grouped into index pages by the same rule, with another salt, over the key of each page's last entry.
  So the pages depend on the entries alone, never on the order of the commits that led to them, and a change of one
  component changes one page and one index page.
* The digest of a page is SHA-256 over its entries, of an index page over its pages, of a version over its index pages.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NoReturn, TypeVar

_Item = TypeVar("_Item")

FORMAT = "manifest/1"
MEAN_PAGE = 64
LARGEST_PAGE = 256

ComponentKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One component of a version.

    `format` is the format of the bytes (`parquet`, `csv`, `binary`, …); `metadata` is canonical JSON stored as text
    (see `canonical_json`), or None. `file_id` and `schema_id` are row ids in the catalog, which are not part of the
    digest.
    """

    name: str
    index: int
    type: str
    content_hash: str
    format: str = "binary"
    metadata: str | None = None
    file_id: int = field(default=0, compare=False)
    schema_id: int | None = field(default=None, compare=False)

    @property
    def key(self) -> ComponentKey:
        return (self.name, self.index)

    def digest(self) -> bytes:
        texts = (self.type, self.format, self.content_hash, self.metadata or "")
        return _hash("entry", _key_bytes(self.key), *(text.encode() for text in texts))


@dataclass(frozen=True, slots=True)
class Page:
    """A run of entries; `id` is None until the catalog stored it, `entries` is None until they were loaded."""

    last: ComponentKey
    digest: str
    count: int
    id: int | None = None
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True, slots=True)
class IndexPage:
    """A run of pages; `count` is the number of entries below it."""

    last: ComponentKey
    digest: str
    count: int
    id: int | None = None
    pages: tuple[Page, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All pages of a version, loaded as far as needed."""

    index: tuple[IndexPage, ...]

    @property
    def digest(self) -> str:
        return version_digest(page.digest for page in self.index)

    @property
    def count(self) -> int:
        return sum(page.count for page in self.index)


Edits = Mapping[ComponentKey, Entry | None]
"""The edits of a commit to a manifest by key: an entry to set, or None to remove it."""

EMPTY = Manifest(())


def canonical_json(value: object) -> str:
    """The canonical text of a JSON value: sorted keys, no spaces, UTF-8. Raises `ValueError` for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def schema_digest(snapshot: object) -> str:
    """The digest of a captured schema: the SHA-256 of its canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(snapshot).encode()).hexdigest()


MOST_LEVELS = 100
"""Maximum nesting of metadata, a limit of JSON libraries."""


def is_nested_deeper(value: object, levels: int = MOST_LEVELS) -> bool:
    """Whether a JSON value has more levels of objects and lists than this."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            item
            for outer in layer
            if isinstance(outer, dict | list | tuple)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


def sort_key(key: ComponentKey) -> tuple[bytes, int]:
    """The order of components: by UTF-8 bytes of the name (what both databases can index), then by index."""
    return (key[0].encode(), key[1])


def component_label(name: str, index: int) -> str:
    """The label of a component: `name`, or `name[2]` with an index."""
    return name if index == 0 else f"{name}[{index}]"


def build(entries: Iterable[Entry]) -> Manifest:
    """Build the manifest of entries in any order."""
    return rewrite(EMPTY, {entry.key: entry for entry in entries}, _nothing_to_load, _nothing_to_load)


def rewrite(
    manifest: Manifest,
    edits: Edits,
    load_pages: Callable[[IndexPage], Sequence[Page]],
    load_entries: Callable[[Page], Sequence[Entry]],
) -> Manifest:
    """Apply `edits` to a manifest, reusing every page that they do not change.

    Equal to `build` of the resulting entries. Loads only the pages with an edit, and the pages after them until the
    borders match again (usually none).
    """
    ordered = sorted(edits, key=sort_key)
    order = [sort_key(key) for key in ordered]
    pages: _Cutter[Page] = _Cutter(lambda page: page.last, b"index")
    entries: _Cutter[Entry] = _Cutter(lambda entry: entry.key, b"page")
    index: list[IndexPage] = []
    done = 0

    def upto(last: ComponentKey, *, final: bool) -> int:
        return len(ordered) if final else bisect_right(order, sort_key(last))

    def accept_page(page: Page, *, inner: bool = False) -> None:
        if run := pages.push(page, inner=inner):
            index.append(_index_page(run))

    def accept_entries(run: Sequence[Entry], inner: Container[ComponentKey] = ()) -> None:
        for entry in run:
            if cut := entries.push(entry, inner=entry.key in inner):
                accept_page(_page(cut))

    for i, old_index in enumerate(manifest.index):
        last_index = i == len(manifest.index) - 1
        if upto(old_index.last, final=last_index) == done and not entries.pending and not pages.pending:
            index.append(old_index)
            continue
        old_pages = old_index.pages or load_pages(old_index)
        for j, old_page in enumerate(old_pages):
            last_page = j == len(old_pages) - 1
            until = upto(old_page.last, final=last_index and last_page)
            if until == done and not entries.pending:
                accept_page(old_page, inner=not last_page)
                continue
            changed = {key: edits[key] for key in ordered[done:until]}
            done = until
            old_entries = old_page.entries or load_entries(old_page)
            accept_entries(_apply(old_entries, changed), {entry.key for entry in old_entries[:-1]})
    if done < len(ordered):  # only an empty manifest has no last page to take the rest
        accept_entries(_apply((), {key: edits[key] for key in ordered[done:]}))
    if entries.pending:
        accept_page(_page(entries.take()))
    if pages.pending:
        index.append(_index_page(pages.take()))
    return Manifest(tuple(index))


class _Cutter(Generic[_Item]):
    """Collects items and returns a run whenever one ends at a border."""

    def __init__(self, key: Callable[[_Item], ComponentKey], salt: bytes) -> None:
        self._key = key
        self._salt = salt
        self.pending: list[_Item] = []

    def push(self, item: _Item, *, inner: bool = False) -> Sequence[_Item] | None:
        """Add an item; the run that ends with it, if it ends one. `inner` items lay inside a run before: no borders."""
        self.pending.append(item)
        if len(self.pending) >= LARGEST_PAGE or (not inner and is_border(self._key(item), self._salt)):
            return self.take()
        return None

    def take(self) -> Sequence[_Item]:
        run, self.pending = self.pending, []
        return run


def is_border(key: ComponentKey, salt: bytes) -> bool:
    """Whether a page (`salt` = b"page") or an index page (b"index") ends after this key."""
    digest = hashlib.sha256(b"dataset_registry manifest/1 border " + salt + b"\0" + _key_bytes(key)).digest()
    return int.from_bytes(digest[:8], "big") % MEAN_PAGE == 0


def _apply(entries: Sequence[Entry], edits: Edits) -> list[Entry]:
    kept = {entry.key: entry for entry in entries}
    for key, entry in edits.items():
        if entry is None:
            kept.pop(key, None)
        else:
            kept[key] = entry
    return sorted(kept.values(), key=lambda entry: sort_key(entry.key))


def page_digest(entries: Iterable[Entry]) -> str:
    """The digest of a page: over its entries."""
    return _hash("page", *(entry.digest() for entry in entries)).hex()


def index_digest(pages: Iterable[str]) -> str:
    """The digest of an index page: over the digests of its pages."""
    return _hash("index", *(page.encode() for page in pages)).hex()


def version_digest(index_pages: Iterable[str]) -> str:
    """The digest of a version: over the digests of its index pages."""
    return _hash("version", *(page.encode() for page in index_pages)).hex()


def _page(entries: Sequence[Entry]) -> Page:
    return Page(entries[-1].key, page_digest(entries), len(entries), entries=tuple(entries))


def _index_page(pages: Sequence[Page]) -> IndexPage:
    digest = index_digest(page.digest for page in pages)
    return IndexPage(pages[-1].last, digest, sum(page.count for page in pages), pages=tuple(pages))


def with_new_entries(manifest: Manifest, change: Callable[[Entry], Entry]) -> Manifest:
    """The manifest with every entry of its new pages (those without an id) replaced; `change` must leave digests alone."""

    def page(found: Page) -> Page:
        return found if found.id is not None else replace(found, entries=tuple(map(change, found.entries or ())))

    return Manifest(
        tuple(
            index if index.id is not None else replace(index, pages=tuple(map(page, index.pages or ())))
            for index in manifest.index
        )
    )


def entries_digest(entries: Iterable[Entry]) -> str:
    """The version digest that a manifest of just these entries would have: the data version of a partition."""
    return build(entries).digest


_TAGGED = {
    kind: hashlib.sha256(f"dataset_registry {FORMAT} {kind}\0".encode())
    for kind in ("entry", "page", "index", "version")
}


def _hash(kind: str, *parts: bytes) -> bytes:
    """SHA-256 over a tag and length-prefixed parts, so that no two lists of parts share an encoding."""
    hasher = _TAGGED[kind].copy()
    hasher.update(b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)]))
    return hasher.digest()


def _key_bytes(key: ComponentKey) -> bytes:
    return key[0].encode() + b"\0" + str(key[1]).encode()


def _nothing_to_load(page: object) -> NoReturn:
    raise AssertionError(f"a manifest built from nothing has no page to load: {page}")
