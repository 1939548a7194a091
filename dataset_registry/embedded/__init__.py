"""The registry in this process: every method calls one operation on a catalog and a store."""

from dataset_registry.embedded.registry import EmbeddedRegistry, open_embedded, rebound

__all__ = ["EmbeddedRegistry", "open_embedded", "rebound"]
