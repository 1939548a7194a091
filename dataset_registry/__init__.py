"""dataset_registry: git for the datasets that a Dagster pipeline materializes."""

from dataset_registry.dataset import Dataset, Draft
from dataset_registry.errors import RegistryError
from dataset_registry.model.records import InputVersion, Provenance
from dataset_registry.model.retention import Policy, Rule
from dataset_registry.registry import Registry
from dataset_registry.version import Version

__all__ = ["Dataset", "Draft", "InputVersion", "Policy", "Provenance", "Registry", "RegistryError", "Rule", "Version"]
__version__ = "0.1.0"
