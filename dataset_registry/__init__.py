"""dataset_registry: git for the datasets that a Dagster pipeline materializes."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_registry.dataset import Dataset, Draft
    from dataset_registry.errors import RegistryError
    from dataset_registry.model.records import InputVersion, Provenance
    from dataset_registry.model.retention import Policy, Rule
    from dataset_registry.registry import Registry
    from dataset_registry.version import Version

__all__ = ["Dataset", "Draft", "InputVersion", "Policy", "Provenance", "Registry", "RegistryError", "Rule", "Version"]
__version__ = "0.1.0"

_HOMES = {
    "Dataset": "dataset",
    "Draft": "dataset",
    "InputVersion": "model.records",
    "Policy": "model.retention",
    "Provenance": "model.records",
    "Registry": "registry",
    "RegistryError": "errors",
    "Rule": "model.retention",
    "Version": "version",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access, so that importing the package stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
