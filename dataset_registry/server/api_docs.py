"""The API documentation page. It loads files only from this server, so that it works without internet access."""

from importlib import resources

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
"""Files of Swagger UI, in the package `fastapi-swagger`."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

# Addresses are relative to /docs: the page works below a path of a proxy as well.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dataset_registry: REST API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Without `validatorUrl` the page would send the address of the description to a public validator.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null,
  persistAuthorization: false,
});
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/docs/start.js")
def start() -> Response:
    """The script that starts the page, in its own file because the page's policy allows no inline scripts."""
    return Response(_START, media_type="text/javascript", headers=_HEADERS)


def _add(name: str, media_type: str) -> None:
    def asset() -> FileResponse:
        path = resources.files("fastapi_swagger") / "resources" / name
        return FileResponse(str(path), media_type=media_type, headers=_HEADERS | {"Cache-Control": "max-age=3600"})

    router.add_api_route(f"/docs/{name}", asset)


for _name, _media_type in _ASSETS.items():
    _add(_name, _media_type)
