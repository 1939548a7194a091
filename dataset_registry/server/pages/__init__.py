"""The pages: rendered on the server, readable without scripts, with nothing from other origins."""

_PAGES = ("/datasets", "/branches", "/reviews", "/runs", "/search", "/admin", "/sign-out")


def is_page(path: str) -> bool:
    """Whether a path is that of a page that needs a session."""
    return path == "/" or any(path == start or path.startswith(start + "/") for start in _PAGES)
