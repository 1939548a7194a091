"""A registry over REST: the surface of the embedded one, every method a request. The only home of httpx."""

from dataset_registry.remote.registry import open_remote

__all__ = ["open_remote"]
