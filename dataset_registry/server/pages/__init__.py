"""The pages: rendered on the server, readable without scripts, with nothing from other origins."""

_PAGES = ("/datasets", "/branches", "/reviews", "/runs", "/search", "/admin", "/sign-out")
SIGN_IN = "/sign-in"


def is_page(path: str) -> bool:
    """Whether a path is that of a page: errors are shown as pages."""
    return path == SIGN_IN or needs_session(path)


def needs_session(path: str) -> bool:
    """Whether a path is that of a page for those who are signed in."""
    return path == "/" or any(path == start or path.startswith(start + "/") for start in _PAGES)
