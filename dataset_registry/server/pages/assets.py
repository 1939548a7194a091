"""The stylesheet, the script and the icon of the pages: files of this package."""

from importlib import resources

from fastapi import APIRouter
from fastapi.responses import FileResponse

from dataset_registry.server.pages.rendering import HEADERS

router = APIRouter(include_in_schema=False)

_ASSETS = {"registry.css": "text/css", "registry.js": "text/javascript", "icon.svg": "image/svg+xml"}


def _add(name: str, media_type: str) -> None:
    def asset() -> FileResponse:
        path = resources.files("dataset_registry.server.pages") / "static" / name
        return FileResponse(str(path), media_type=media_type, headers={**HEADERS, "Cache-Control": "no-cache"})

    router.add_api_route(f"/static/{name}", asset)


for _name, _media_type in _ASSETS.items():
    _add(_name, _media_type)
