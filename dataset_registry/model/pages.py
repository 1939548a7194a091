"""The addresses of pages, as paths on a server."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

_UNESCAPED = "/@=+~:,!$'()*;"
"""Characters of names and refs that need no escape in a path (RFC 3986, 3.3), so that addresses can be read."""


def path_of(path: str, **query: object) -> str:
    """The path of a page, with its query."""
    return _path(path, query)


def dataset_path(name: str, ref: object = None, view: str = "", **query: object) -> str:
    """The path of a dataset, or of a version of it; `view` is what stands behind `/-/`."""
    if "@" in name or name.startswith('"') or "/-/" in name or ("/compare/" in name and "..." in name):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        name = f'"{escaped}"'
    at = "" if ref is None else f"@{ref}"
    return _path(f"/datasets/{name}{at}" + (f"/-/{view}" if view else ""), query)


def comparison_path(name: str, before: object, after: object, view: str = "", **query: object) -> str:
    """The path of a comparison of two refs of a dataset."""
    return dataset_path(name) + _path(f"/compare/{before}...{after}" + (f"/-/{view}" if view else ""), query)


def _path(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "", ())}
    return quote(path, safe=_UNESCAPED) + (f"?{urlencode(given, doseq=True)}" if given else "")
