"""A registry with users, and what tests of permissions do with one."""

from collections.abc import Iterator
from contextlib import contextmanager

from dataset_registry import Registry


@contextmanager
def acting(owner: Registry, user: str) -> Iterator[Registry]:
    """The same registry as a user."""
    access = owner.access
    url = access.catalog.url.render_as_string(hide_password=False)
    with Registry.open(catalog=url, store=access.store, actor=user) as opened:
        yield opened
