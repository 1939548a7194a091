"""Tags that keep the versions whose files other systems reference."""

import re
from collections.abc import Collection
from itertools import count

from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import AlreadyExists, TagImmutable


def as_name(text: str) -> str:
    """A text as a part of the name of a tag: what such names cannot have becomes a hyphen."""
    return re.sub(r"[^\w.+=-]|^\W", "-", text).strip("-.") or "table"


def keep(dataset: EmbeddedDataset, prefix: str, number: int) -> str:
    """Tag a version as `<prefix>/v<number>`, or `…-2` if such a tag was deleted before. Returns the tag."""
    for tag, version in _ours(dataset, prefix).items():
        if version == number:
            return tag
    for turn in count(1):
        tag = f"{prefix}/v{number}{f'-{turn}' if turn > 1 else ''}"
        try:
            dataset.create_tag(tag, f"v{number}")
        except (AlreadyExists, TagImmutable):
            continue  # the name of a deleted tag is not used again
        return tag
    raise AssertionError


def keep_only(dataset: EmbeddedDataset, prefix: str, tags: Collection[str]) -> None:
    """Delete the tags that `keep` made for the prefix, except for these."""
    for tag in _ours(dataset, prefix):
        if tag not in tags:
            dataset.delete_tag(tag)


def _ours(dataset: EmbeddedDataset, prefix: str) -> dict[str, int]:
    """The tags that `keep` made for a prefix, with the numbers of their versions."""
    name = re.compile(re.escape(prefix) + r"/v([0-9]+)(-[0-9]+)?")
    found = ((name.fullmatch(tag.name), tag) for tag in dataset.tags())
    return {tag.name: tag.version_number for match, tag in found if match and int(match[1]) == tag.version_number}
