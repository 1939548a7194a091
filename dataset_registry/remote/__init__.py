"""A registry over REST, with the same interface as an embedded one. The only user of httpx."""

from dataset_registry.remote.registry import open_remote

__all__ = ["open_remote"]
