"""Tags that keep the versions whose files other systems reference."""

from collections.abc import Collection

from dataset_registry.embedded.dataset import EmbeddedDataset
from dataset_registry.errors import AlreadyExists, TagImmutable


def keep(dataset: EmbeddedDataset, prefix: str, number: int) -> str:
    """Tag a version as `<prefix>/v<number>`. Returns the tag. Raises `TagImmutable` if it names another version."""
    tag = f"{prefix}/v{number}"
    try:
        dataset.create_tag(tag, f"v{number}")
    except (AlreadyExists, TagImmutable):
        if dataset.version(tag).number != number:
            raise
    return tag


def keep_only(dataset: EmbeddedDataset, prefix: str, numbers: Collection[int]) -> None:
    """Tag these versions, and delete the tags of the prefix on others."""
    wanted = {keep(dataset, prefix, number) for number in numbers}
    for tag in dataset.tags():
        if tag.name.startswith(f"{prefix}/v") and tag.name not in wanted:
            dataset.delete_tag(tag.name)
