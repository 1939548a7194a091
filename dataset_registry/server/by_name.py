"""Routes of a dataset by its name: `/v1/datasets/by-name/raw/flights/-/log` is `/v1/datasets/{id}/log`.

Names have slashes, which proxies decode or merge where they are escaped; so a name ends at `/-/`, or at the end of the path.
"""

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from dataset_registry.errors import RegistryError
from dataset_registry.operations import datasets
from dataset_registry.server import problems

_PREFIX = "/v1/datasets/by-name/"


class ByNameMiddleware:
    """Middleware that replaces the name in a path by the dataset's id, as far as the caller may read the dataset."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Resolve names in paths below `/v1/datasets/by-name/`; pass on all others."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        name, _, rest = scope["path"].removeprefix(_PREFIX).partition("/-/")
        try:
            found = await run_in_threadpool(datasets.get, scope["state"]["access"], name)
        except RegistryError as error:
            scope["state"]["code"] = error.code
            await problems.response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        path = f"/v1/datasets/{found.id}" + (f"/{rest}" if rest else "")
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)
