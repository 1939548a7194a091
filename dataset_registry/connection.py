"""Where a registry is, as a value that goes to other processes: each opens the registry by itself."""

import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from threading import Lock

from dataset_registry.errors import InputError
from dataset_registry.registry import Registry

VARIABLES = {
    "location": "DATASET_REGISTRY",
    "catalog": "DATASET_REGISTRY_CATALOG",
    "store": "DATASET_REGISTRY_STORE",
    "actor": "DATASET_REGISTRY_ACTOR",
    "token": "DATASET_REGISTRY_TOKEN",
}
"""The environment variables of the settings of a connection."""


@dataclass(frozen=True)
class Connection:
    """The settings of `Registry.open`; `location` is the folder of an embedded registry or the address of a server.

    Those that are None come from the environment of the process that opens it, so that secrets need not travel.
    """

    location: str | None = None
    catalog: str | None = None
    store: str | None = None
    actor: str | None = None
    token: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, object]) -> "Connection":
        """The connection that options say. Raises `InputError` for an unknown one."""
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in options if name not in names]:
            raise InputError(
                f"Unknown option {unknown[0]!r} of the registry. Use: {', '.join(names)}.", option=unknown[0]
            )
        return cls(**{name: None if value is None else str(value) for name, value in options.items()})

    def open(self, interface: str = "python") -> Registry:
        """The registry, opened once in a process. Raises `InputError` if no registry is given."""
        found = self._with_environment()
        key = (os.getpid(), interface, *astuple(found))
        with _lock:
            if key not in _opened:
                _opened[key] = Registry.open(
                    found.location,
                    catalog=found.catalog,
                    store=found.store,
                    actor=found.actor,
                    token=found.token,
                    interface=interface,
                    create=False,
                )
            return _opened[key]

    def _with_environment(self) -> "Connection":
        given = {name: getattr(self, name) for name in VARIABLES}
        if given["catalog"] is None and given["location"] is None:
            given |= {name: os.environ.get(VARIABLES[name]) or None for name in ("location", "catalog", "store")}
        for name in ("actor", "token"):
            given[name] = given[name] or os.environ.get(VARIABLES[name]) or None
        if given["location"] is None and (given["catalog"] is None or given["store"] is None):
            raise InputError(
                "No registry given. Set DATASET_REGISTRY to its folder or to the https:// address of a server (with "
                "DATASET_REGISTRY_TOKEN), or pass the option location, or catalog and store."
            )
        if given["location"] is not None and given["location"].lower().startswith(("https://", "http://")):
            given["actor"] = None  # the token says who it is
        return Connection(**given)


_opened: dict[tuple[object, ...], Registry] = {}
_lock = Lock()
