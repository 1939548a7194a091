"""Rendering of pages: the templates, their filters, and the headers of every page."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dataset_registry.model.pages import comparison_path, dataset_path, path_of
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
_templates.globals |= {"plural": plural, "dataset_url": dataset_path, "compare_url": comparison_path, "url": path_of}


def page(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page as a response."""
    visitor = getattr(request.state, "visitor", None)
    text = _templates.get_template(template).render(visitor=visitor, path=request.url.path, **values)
    return HTMLResponse(text, status, dict(HEADERS))
