"""Manifests: their pages, their digests, and what an edit loads."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_registry.model import manifest as manifests
from dataset_registry.model.manifest import (
    EMPTY,
    LARGEST_PAGE,
    Entry,
    IndexPage,
    Manifest,
    Page,
    build,
    canonical_json,
    is_border,
    rewrite,
    sort_key,
)


def entry(name: str, content: str = "x", index: int = 0, **facts: str) -> Entry:
    return Entry(name, index, "data", hashlib.sha256(content.encode()).hexdigest(), **facts)


def flat(manifest: Manifest) -> list[Entry]:
    return [e for index in manifest.index for page in index.pages or () for e in page.entries or ()]


def edit(manifest: Manifest, edits: dict[tuple[str, int], Entry | None]) -> tuple[Manifest, list[object]]:
    """The manifest after the edits, and what had to be loaded for them (ids stand for stored pages)."""
    loaded: list[object] = []
    stored = Manifest(
        tuple(IndexPage(i.last, i.digest, i.count, id=n, pages=None) for n, i in enumerate(manifest.index))
    )

    def pages(index: IndexPage) -> list[Page]:
        loaded.append(index)
        below = manifest.index[index.id or 0].pages or ()
        return [Page(p.last, p.digest, p.count, id=n, entries=None) for n, p in enumerate(below)]

    def entries(page: Page) -> tuple[Entry, ...]:
        loaded.append(page)
        return next(
            p.entries or ()
            for i in manifest.index
            for p in i.pages or ()
            if p.digest == page.digest and p.last == page.last
        )

    return rewrite(stored, edits, pages, entries), loaded


def test_the_format_is_pinned_by_vectors() -> None:
    assert EMPTY.digest == "1f3a39a5cd39f5c86b5440b359bd28ba616c870c488f4874a75b3e113347bfa0"
    one = build([Entry("data", 0, "data", "ab" * 32, "parquet")])
    assert one.digest == "4cf9ad57acd136013c3b0398ceba84f0c635f60d33c9c36bd661d020b18eec14"
    two = build([Entry("data", 0, "data", "ab" * 32, "parquet", '{"a":1}'), Entry("ä/ö", 3, "overlay", "cd" * 32)])
    assert two.digest == "2faf4bd2b7561d16ece609b00690ba5e71e0f92056fba4201aa1a0856d1527d6"
    many = build(entry(f"component-{i}", str(i % 7)) for i in range(20_000))
    assert (many.digest, len(many.index), sum(len(i.pages or ()) for i in many.index)) == (
        "1da1f89365cd36c8280e51539f98eed08cfdbdf168079fab5817c1fcd48f1e6d",
        7,
        299,
    )


def test_every_field_of_an_entry_but_its_row_ids_changes_the_digest() -> None:
    base = Entry("data", 0, "data", "ab" * 32, "csv", "{}", 1, 1)
    variants = [
        Entry("date", 0, "data", "ab" * 32, "csv", "{}"),
        Entry("data", 1, "data", "ab" * 32, "csv", "{}"),
        Entry("data", 0, "overlay", "ab" * 32, "csv", "{}"),
        Entry("data", 0, "data", "ac" * 32, "csv", "{}"),
        Entry("data", 0, "data", "ab" * 32, "json", "{}"),
        Entry("data", 0, "data", "ab" * 32, "csv", None),
    ]
    assert len({build([e]).digest for e in [base, *variants]}) == 7
    assert build([Entry("data", 0, "data", "ab" * 32, "csv", "{}", 99, 99)]).digest == build([base]).digest


def test_entries_are_sorted_by_the_bytes_of_their_names_then_by_index() -> None:
    names = [("é", 0), ("z", 10), ("z", 9), ("Z", 0), ("日本", 0), ("a b", 0), ("a", 0)]
    manifest = build(entry(name, index=index) for name, index in names)
    assert [e.key for e in flat(manifest)] == [
        ("Z", 0),
        ("a", 0),
        ("a b", 0),
        ("z", 9),
        ("z", 10),
        ("é", 0),
        ("日本", 0),
    ]


def test_the_order_in_which_entries_come_does_not_matter() -> None:
    entries = [entry(f"c{i}") for i in range(3000)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert build(entries) == build(shuffled)


def test_pages_end_at_borders_or_when_full() -> None:
    manifest = build(entry(f"c{i}") for i in range(30_000))
    pages = [page for index in manifest.index for page in index.pages or ()]
    assert all(is_border(page.last, b"page") or page.count == LARGEST_PAGE for page in pages[:-1])
    assert all(not is_border(e.key, b"page") for page in pages for e in (page.entries or ())[:-1])


keys = st.integers(0, 40).map(lambda n: (f"k{n * 37 % 41}", n % 3))
changes = st.dictionaries(keys, st.one_of(st.none(), st.integers(0, 3)), max_size=12)


@settings(max_examples=120, deadline=None)
@given(st.lists(changes, max_size=8), st.integers(0, 900))
def test_a_rewritten_manifest_is_the_one_built_from_nothing(
    edits: list[dict[tuple[str, int], int | None]], filler: int
) -> None:
    content = {e.key: e for e in (entry(f"k{i}x", str(i)) for i in range(filler))}
    manifest = build(content.values())
    for change in edits:
        new = {key: None if value is None else entry(key[0], str(value), key[1]) for key, value in change.items()}
        for key, value in new.items():
            content.pop(key, None) if value is None else content.__setitem__(key, value)
        manifest, _ = edit(manifest, new)
        expected = build(content.values())
        assert manifest.digest == expected.digest
        assert manifest.count == len(content)
        assert [i.digest for i in manifest.index] == [i.digest for i in expected.index]
        manifest = expected  # `edit` keeps the loaded pages only: go on with the whole


@settings(max_examples=200, deadline=None)
@given(st.lists(changes, min_size=1, max_size=6), st.integers(0, 300))
def test_a_rewritten_manifest_of_many_small_pages_is_the_one_built_from_nothing(
    edits: list[dict[tuple[str, int], int | None]], filler: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # so small that edits cross pages and index pages
        patch.setattr(manifests, "MEAN_PAGE", 4)
        patch.setattr(manifests, "LARGEST_PAGE", 8)
        test_a_rewritten_manifest_is_the_one_built_from_nothing.hypothesis.inner_test(edits, filler)  # type: ignore[attr-defined]


def test_replacing_one_of_a_hundred_thousand_loads_one_page_and_one_index_page() -> None:
    content = {e.key: e for e in (entry(f"c{i}") for i in range(100_000))}
    manifest = build(content.values())
    for name in ("c0", "c50000", "c99999"):
        changed, loaded = edit(manifest, {(name, 0): entry(name, "new")})
        assert len(loaded) == 2
        new_index = [index for index in changed.index if index.id is None]
        assert len(new_index) == 1
        assert sum(page.id is None for page in new_index[0].pages or ()) == 1
        assert changed.digest == build({**content, (name, 0): entry(name, "new")}.values()).digest


def test_a_removed_border_joins_pages_and_an_added_one_cuts_them() -> None:
    content = {e.key: e for e in (entry(f"c{i}") for i in range(5000))}
    manifest = build(content.values())
    border = next(key for key in sorted(content, key=sort_key) if is_border(key, b"page"))
    without, _ = edit(manifest, {border: None})
    assert without.digest == build(e for key, e in content.items() if key != border).digest
    back, _ = edit(build(e for key, e in content.items() if key != border), {border: content[border]})
    assert back.digest == manifest.digest


def test_canonical_json_keeps_numbers_as_they_are() -> None:
    assert canonical_json({"b": -0.0, "a": 1e22, "ü": [1, None, True]}) == '{"a":1e+22,"b":-0.0,"ü":[1,null,true]}'
