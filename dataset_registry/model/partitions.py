"""Partitions as components: how a partition's content is named inside a version.

A partition is the component that has its key for a name. When a partition holds several components, these are called
`<key>//<name>` and say in their metadata which partition they belong to. A key may have slashes, but no two in a row, so
that no partition is taken for a component of another one.
"""

from collections.abc import Mapping
from typing import Any

from dataset_registry.errors import InvalidName
from dataset_registry.model.names import component_name

METADATA_KEY = "partition"
_SEPARATOR = "//"


def partition_key(text: str) -> str:
    """Check and normalise the key of a partition. Raises `InvalidName`."""
    key = component_name(text)
    if _SEPARATOR in key:
        raise InvalidName(f"The partition key {text!r} contains '//', which is reserved. Rename it.", key=text)
    return key


def component_of(key: str, name: str | None) -> tuple[str, Mapping[str, object]]:
    """The name and the metadata of a partition's component; `name` is None when the partition is one component."""
    return (key, {}) if name is None else (f"{prefix(key)}{name}", {METADATA_KEY: key})


def prefix(key: str) -> str:
    """The prefix of the names of a partition's components, if it has several."""
    return f"{key}{_SEPARATOR}"


def belongs(name: str, metadata: Mapping[str, Any], key: str) -> bool:
    """Whether a component belongs to the partition `key`."""
    return bool(metadata.get(METADATA_KEY, name) == key)


def local_name(name: str, key: str) -> str:
    """The name of a component within its partition."""
    return name.removeprefix(prefix(key))
