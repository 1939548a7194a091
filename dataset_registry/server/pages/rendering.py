"""Rendering of pages: the templates, their filters, and the headers of every page."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dataset_registry.model.texts import shown

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""The headers of every page: no inline scripts or styles, nothing from other origins, no frames."""


def _finalize(value: object) -> object:
    """Untrusted text for people: control and bidirectional characters are shown as escapes."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return shown(value, lines=True)


def size(count: float | None) -> str:
    """Bytes for people: 1.5 MB."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit returns")


def number(count: float | None) -> str:
    """A number for people: 1,234,567; a dash for an unknown one."""
    return "–" if count is None else f"{count:,}"


def plural(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun: 1 version, 2 versions."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def age(moment: datetime) -> Markup:
    """How long ago something was, as a time element with the exact time."""
    exact = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.astimezone(UTC).isoformat(timespec="seconds"), exact, _ago(moment)
    )


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds > 300 * 86400 or seconds < -60:
        return f"{moment:%Y-%m-%d}"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return plural(int(seconds // length), unit) + " ago"
    return "just now"


def dataset_url(name: str, ref: object = None, tail: str = "", **query: object) -> str:
    """The address of a dataset, or of a version of it, without the path that the server is mounted at."""
    if "@" in name or name.startswith('"') or "/-/" in name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        name = f'"{escaped}"'
    at = "" if ref is None else f"@{ref}"
    return _url(f"/datasets/{name}{at}" + (f"/-/{tail}" if tail else ""), query)


def compare_url(name: str, before: object, after: object, tail: str = "", **query: object) -> str:
    """The address of a comparison of two refs of a dataset."""
    return dataset_url(name).partition("?")[0] + _url(
        f"/compare/{before}...{after}" + (f"/-/{tail}" if tail else ""), query
    )


def url(path: str, **query: object) -> str:
    """The address of another page."""
    return _url(path, query)


def _url(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, "", ())}
    # The characters of names and refs that need no escape in a path (RFC 3986, 3.3), so that addresses can be read.
    escaped = quote(path, safe="/@=+~:,!$'()*;")
    return escaped + (f"?{urlencode(given, doseq=True)}" if given else "")


_templates = Environment(
    loader=PackageLoader("dataset_registry.server.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters |= {"size": size, "number": number, "age": age}
_templates.globals |= {"plural": plural, "dataset_url": dataset_url, "compare_url": compare_url, "url": url}


def page(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page as a response."""
    return HTMLResponse(rendered(request, template, **values), status, dict(HEADERS))


def rendered(request: Request, template: str, /, **values: Any) -> str:
    """The text of a page."""
    visitor = getattr(request.state, "visitor", None)
    return _templates.get_template(template).render(visitor=visitor, path=request.url.path, **values)
