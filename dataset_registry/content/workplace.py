"""A place for the work of one operation on tables: a spool, and an engine for joins."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset_registry.access import Access
from dataset_registry.store import Spool

if TYPE_CHECKING:
    from dataset_registry.tabular.engine import Engine


@dataclass(frozen=True, slots=True)
class Workplace:
    """A spool for what is written, and an engine that works in its folder."""

    spool: Spool
    engine: "Engine"


@contextmanager
def workplace(access: Access) -> Iterator[Workplace]:
    """A place for one operation, which is removed at its end."""
    from dataset_registry.tabular.engine import Engine

    with Spool(access.store.scratch) as spool, Engine(spool.folder) as engine:
        yield Workplace(spool, engine)
