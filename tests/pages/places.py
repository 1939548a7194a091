"""Every page there is, by the permission that it takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The path of a page; who may see it: everybody who is signed in, readers of `raw/`, or administrators; and texts of it."""

    path: str
    who: str
    shows: str = ""


PLACES = (
    Place("/", "all"),
    Place("/datasets", "all"),
    Place("/?prefix=raw/", "all"),
    Place("/?q=price", "all"),
    Place("/search", "all"),
    Place("/search?q=price", "all"),
    Place("/branches", "all"),
    Place("/branches/pr-7", "readers", "raw/prices"),
    Place("/branches/other", "readers", "raw/prices"),
    Place("/reviews", "all"),
    Place("/reviews?state=all", "all"),
    Place("/reviews/new", "all"),
    Place("/reviews/1", "readers", "Resolve 2 conflicts first"),
    Place("/reviews/1/resolve?dataset=raw/prices", "readers", "base: no row"),
    Place("/runs/run-1", "readers", "clean/prices"),
    Place("/runs/run-2", "administrators", "report/prices"),
    Place("/datasets/raw/prices", "readers", "Merge other"),
    Place("/datasets/raw/prices?before=3", "readers", "The first prices"),
    Place("/datasets/raw/prices/-/schema", "readers", "+ price: double"),
    Place("/datasets/raw/prices/-/settings", "readers", "release-1"),
    Place("/datasets/raw/prices@main", "readers", "no_gaps"),
    Place("/datasets/raw/prices@v1", "readers", "The first prices"),
    Place("/datasets/raw/prices@release-1", "readers", "The first prices"),
    Place("/datasets/raw/prices@main~1", "readers"),
    Place("/datasets/raw/prices@broken", "readers", "Tainted"),
    Place("/datasets/raw/prices@main/-/preview", "readers", "Distribution of 4 values"),
    Place(
        "/datasets/raw/prices@main/-/preview?filter=price&operator=%3E&value=2&sort=price&order=descending", "readers"
    ),
    Place("/datasets/raw/prices@main/-/components", "readers", "Download data"),
    Place("/datasets/raw/prices@main/-/lineage", "readers"),
    Place("/datasets/raw/prices@main/-/download", "readers"),
    Place("/datasets/raw/prices/compare/v1...main", "readers", "Statistics side by side"),
    Place("/datasets/raw/prices/compare/v1...main/-/rows?component=data", "readers", "rows added"),
    Place("/datasets/raw/prices/compare/main...pr-7", "readers"),
    Place("/datasets/raw/prices/compare/raw/prices@v1...clean/prices@main", "readers", "clean/prices@v1"),
    Place("/datasets/raw/prices/compare/v1...clean/prices@main", "readers", "Statistics side by side"),
    Place("/datasets/raw/prices/compare/main...secret/plans@main", "administrators"),
    Place("/datasets/files/all", "administrators", "Another image"),
    Place("/datasets/files/all@main", "administrators"),
    *(
        Place(f"/datasets/files/all@main/-/preview?component={name}", "administrators")
        for name in ("a.html", "b.svg", "c.csv", "d.json", "e.md", "f.png", "g.bin", "h.txt", "big")
    ),
    Place("/datasets/files/all@main/-/image?component=f.png", "administrators"),
    Place("/datasets/files/all/compare/v1...v2", "administrators"),
    Place("/datasets/wide/table@main", "administrators", "column_199"),
    Place("/datasets/wide/table@main/-/preview", "administrators", "column_0"),
    Place("/datasets/secret/plans", "administrators", "Not for everybody"),
    Place("/datasets/secret/plans@main/-/preview", "administrators", "the secret plan"),
    Place("/datasets/secret/plans@main/-/download", "administrators"),
    Place("/admin/health", "administrators", "revision"),
    Place("/admin/users", "administrators", "Last used"),
    Place("/admin/access", "administrators"),
    Place("/admin/access?user=reader&dataset=raw/prices", "administrators", "granted by"),
    Place("/admin/audit", "administrators", "commit"),
    Place("/admin/storage", "administrators", "Verify now"),
    Place("/admin/storage?plan=collect", "administrators", "A collection would delete"),
)
PAGES = tuple(place for place in PLACES if not any(part in place.path for part in ("download", "/image?")))
"""Those that are HTML."""
