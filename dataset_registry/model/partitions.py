"""Partitions as components: how a partition's content is named inside a version.

A partition is the component that has its key for a name. When a partition holds several components, these are called
`<key>/<name>` and say in their metadata which partition they belong to (a key may contain slashes itself).
"""

from collections.abc import Mapping
from typing import Any

METADATA_KEY = "partition"


def component_of(key: str, name: str | None) -> tuple[str, Mapping[str, object]]:
    """The name and the metadata of a partition's component; `name` is None when the partition is one component."""
    return (key, {}) if name is None else (f"{key}/{name}", {METADATA_KEY: key})


def belongs(name: str, metadata: Mapping[str, Any], key: str) -> bool:
    """Whether a component whose name is `key`, or starts with it and a slash, is of the partition `key`."""
    return name == key or metadata.get(METADATA_KEY) == key


def local_name(name: str, key: str) -> str:
    """What a component of a partition is called within it."""
    return name.removeprefix(f"{key}/")
